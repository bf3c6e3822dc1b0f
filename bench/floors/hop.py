"""A bare loop of aio-pika: consume, publish with a confirm, acknowledge; on quorum queues, and nothing else.

`python -m bench.floors.hop AMQP_URL MESSAGES`; prints the rate and the microseconds of CPU for a message as JSON.
"""

import asyncio
import json
import sys
import time

import aio_pika
import uvloop
from aiormq.abc import FieldTable

PREFETCH = 200
FROM, TO = 0.2, 0.95
BODY = b"x" * 450


async def main(url: str, messages: int) -> None:
    """Fill one queue, and move its messages to another."""
    async with await aio_pika.connect(url) as connection:
        channel = await connection.channel(publisher_confirms=True)
        await channel.set_qos(prefetch_count=PREFETCH)
        quorum: FieldTable = {"x-queue-type": "quorum"}
        source = await channel.declare_queue("bench.from", durable=True, arguments=quorum)
        target = await channel.declare_queue("bench.to", durable=True, arguments=quorum)
        for start in range(0, messages, 200):
            await asyncio.gather(
                *(publish(channel, source.name) for _ in range(start, min(messages, start + 200)))
            )
        marks: dict[int, tuple[float, float]] = {}
        done = 0
        finished = asyncio.Event()

        async def move(message: aio_pika.abc.AbstractIncomingMessage) -> None:
            nonlocal done
            await publish(channel, target.name, message.body)
            await message.ack()
            done += 1
            if done in (int(FROM * messages), int(TO * messages)):
                marks[done] = (time.perf_counter(), time.process_time())
            if done == messages:
                finished.set()

        await source.consume(move)
        await finished.wait()
    (begun, (wall_0, cpu_0)), (ended, (wall_1, cpu_1)) = sorted(marks.items())
    count = ended - begun
    found = {"rate": count / (wall_1 - wall_0), "cpu_us": (cpu_1 - cpu_0) / count * 1e6}
    sys.stdout.write(json.dumps(found) + "\n")


async def publish(channel: aio_pika.abc.AbstractChannel, queue: str, body: bytes = BODY) -> None:
    """Publish one persistent message to a queue, and wait for the confirm."""
    message = aio_pika.Message(body, delivery_mode=aio_pika.DeliveryMode.PERSISTENT)
    await channel.default_exchange.publish(message, queue)


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1], int(sys.argv[2])))
