"""FastStream: a subscriber that POSTs what it gets by aiohttp, run by FastStream's own command."""

import asyncio
import logging
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
from faststream import AckPolicy, FastStream
from faststream.rabbit import Channel, QueueType, RabbitBroker, RabbitQueue
from faststream.rabbit.annotations import RabbitMessage

FILLING = sys.argv[1:2] == ["fill"]
AMQP_URL = sys.argv[2] if FILLING else os.environ["BENCH_AMQP_URL"]
WEBHOOK_URL = os.environ.get("BENCH_WEBHOOK_URL", "")
TEXT = "Your parcel left the depot this morning and will be with you between two and four. " * 2 + "Bye!"

# A quorum queue survives the loss of a node; FastStream supports it.
QUEUE = RabbitQueue("bench.faststream", queue_type=QueueType.QUORUM)
# FastStream runs a handler for every message it holds, so this bounds what waits in the process, too.
# At the level DEBUG, which is not shown, it says that a message was received and processed. Not by its command's
# --log-level, which would also raise the level of those two lines; errors are logged as errors in any case.
broker = RabbitBroker(AMQP_URL, default_channel=Channel(prefetch_count=200), log_level=logging.DEBUG)
http: aiohttp.ClientSession


@asynccontextmanager
async def lifespan() -> AsyncIterator[None]:
    """Open one client for all messages."""
    global http
    # At most 64 POSTs at once, as with the bare loop; the other handlers wait for a connection.
    connector = aiohttp.TCPConnector(limit=64)
    headers = {"Content-Type": "application/json"}
    async with aiohttp.ClientSession(connector=connector, headers=headers) as http:
        yield


app = FastStream(broker, lifespan=lifespan)


# The default, REJECT_ON_ERROR, drops a message whose POST failed: this one puts it back. In both, it is
# acknowledged after the handler, so a worker that dies loses none.
@broker.subscriber(QUEUE, ack_policy=AckPolicy.NACK_ON_ERROR)
async def deliver(message: RabbitMessage) -> None:
    """POST one message, the bytes as they came: cheaper than to encode them again."""
    async with http.post(WEBHOOK_URL, data=message.body) as answer:
        await answer.read()
    answer.raise_for_status()


def body(number: int) -> dict[str, Any]:
    """Make one message, of about 300 bytes as JSON."""
    return {
        "senderId": f"user-{number % 200}",
        "messageCounter": number // 200 + 1,
        "message": {"textMessage": {"text": f"{number:08d} {TEXT}"}},
    }


async def fill(count: int) -> None:
    """Put messages onto the queue, many confirms at a time."""
    await broker.connect()
    await broker.declare_queue(QUEUE)
    for start in range(0, count, 500):
        numbers = range(start, min(start + 500, count))
        await asyncio.gather(*(broker.publish(body(number), QUEUE, persist=True) for number in numbers))
    await broker.stop()


if __name__ == "__main__":
    asyncio.run(fill(int(sys.argv[4])))
