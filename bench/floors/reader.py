"""The delivery worker's own way to read queues, a POST and an acknowledgement, and nothing else that a worker does.

`python -m bench.floors.reader AMQP_URL URL PARTITIONS MESSAGES`; prints the rate and the microseconds of CPU for a
message as JSON.
"""

import asyncio
import gc
import json
import sys
import time

import aiohttp
import structlog
import uvloop

from bench.floors.post_only import IN_FLIGHT
from broker.partitions import partition_word
from broker.port import Envelope, Subscription
from broker.rabbitmq.broker import RabbitBroker
from broker.topology import Topology, outbound_queue
from consumers.cli.main import GARBAGE

PREFETCH = 200
FROM, TO = 0.2, 0.95


async def main(amqp_url: str, url: str, partitions: int, messages: int) -> None:
    """POST so many messages, each as it is on the queue."""
    broker = RabbitBroker(amqp_url, Topology(partitions), 10.0)
    slots = asyncio.Semaphore(IN_FLIGHT)
    marks: dict[int, tuple[float, float]] = {}
    done = 0
    finished = asyncio.Event()
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0), headers={"Content-Type": "application/json"}
    ) as session:

        async def deliver(held: Subscription, envelope: Envelope) -> None:
            nonlocal done
            async with slots, session.post(url, data=envelope.body) as answer:
                if answer.status != 200:
                    raise SystemExit(f"the receiver answered {answer.status}")
                await answer.read()
            held.ack(envelope)
            done += 1
            if done in (int(FROM * messages), int(TO * messages)):
                marks[done] = (time.perf_counter(), time.process_time())
            if done == messages:
                finished.set()

        async def read(partition: int) -> None:
            queue = outbound_queue(partition_word(partition))
            async with broker.subscribe(queue, PREFETCH) as held, asyncio.TaskGroup() as group:
                while True:
                    for envelope in await held.receive():
                        group.create_task(deliver(held, envelope))

        await broker.start()
        reading = [asyncio.create_task(read(partition)) for partition in range(partitions)]
        await finished.wait()
        for task in reading:
            task.cancel()
        await asyncio.gather(*reading, return_exceptions=True)
        await broker.close()
    (begun, (wall_0, cpu_0)), (ended, (wall_1, cpu_1)) = sorted(marks.items())
    count = ended - begun
    found = {"rate": count / (wall_1 - wall_0), "cpu_us": (cpu_1 - cpu_0) / count * 1e6}
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    # What is written to standard output is the result.
    structlog.configure(logger_factory=structlog.WriteLoggerFactory(sys.stderr))
    # As a worker does.
    gc.freeze()
    gc.set_threshold(*GARBAGE)
    uvloop.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])))
