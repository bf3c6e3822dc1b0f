"""A bare loop: consume by aio-pika, POST by aiohttp, acknowledge, and no feature at all.

It has no retries, no reconnecting and no orderly stop: what it costs at least to move a message in Python.
"""

import asyncio
import json
import os
import sys
from typing import Any

import aio_pika
import aiohttp
import uvloop

QUEUE = "bench.bare"
# As many as the other peers may hold unacknowledged, and as many POSTs at once as they have connections.
PREFETCH, IN_FLIGHT = 200, 64
TEXT = "Your parcel left the depot this morning and will be with you between two and four. " * 2 + "Bye!"


def body(number: int) -> dict[str, Any]:
    """Make one message, of about 300 bytes as JSON."""
    return {
        "senderId": f"user-{number % 200}",
        "messageCounter": number // 200 + 1,
        "message": {"textMessage": {"text": f"{number:08d} {TEXT}"}},
    }


async def declare(channel: Any) -> Any:
    """Declare the queue, replicated and on disk."""
    return await channel.declare_queue(QUEUE, durable=True, arguments={"x-queue-type": "quorum"})


async def fill(amqp_url: str, count: int) -> None:
    """Put messages onto the queue, many confirms at a time."""
    async with await aio_pika.connect(amqp_url) as connection:
        channel = await connection.channel(publisher_confirms=True)
        await declare(channel)

        async def publish(number: int) -> None:
            message = aio_pika.Message(
                json.dumps(body(number)).encode(), delivery_mode=aio_pika.DeliveryMode.PERSISTENT
            )
            await channel.default_exchange.publish(message, routing_key=QUEUE)

        for start in range(0, count, 500):
            await asyncio.gather(*(publish(number) for number in range(start, min(start + 500, count))))


async def work(amqp_url: str, webhook_url: str) -> None:
    """Deliver until the process is ended."""
    slots = asyncio.Semaphore(IN_FLIGHT)
    # `connect` and not `connect_robust`: no feature.
    async with (
        aiohttp.ClientSession(headers={"Content-Type": "application/json"}) as http,
        await aio_pika.connect(amqp_url) as connection,
    ):
        channel = await connection.channel()
        await channel.set_qos(prefetch_count=PREFETCH)

        async def deliver(message: Any) -> None:
            async with slots, http.post(webhook_url, data=message.body) as answer:
                await answer.read()
            # A message that failed stays unacknowledged, and RabbitMQ gives it to the next process.
            answer.raise_for_status()
            await message.ack()

        await (await declare(channel)).consume(deliver)
        await asyncio.Event().wait()


if __name__ == "__main__":
    if sys.argv[1] == "fill":
        uvloop.run(fill(sys.argv[2], int(sys.argv[4])))
    else:
        uvloop.run(work(os.environ["BENCH_AMQP_URL"], os.environ["BENCH_WEBHOOK_URL"]))
