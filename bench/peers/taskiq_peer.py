"""Taskiq on taskiq-aio-pika: a task that POSTs its argument by aiohttp, run by taskiq's own worker."""

import asyncio
import os
import sys
from typing import Any

import aiohttp
from taskiq import SmartRetryMiddleware, TaskiqEvents, TaskiqState
from taskiq_aio_pika import AioPikaBroker, Exchange, Queue, QueueType

FILLING = sys.argv[1:2] == ["fill"]
AMQP_URL = sys.argv[2] if FILLING else os.environ["BENCH_AMQP_URL"]
WEBHOOK_URL = os.environ.get("BENCH_WEBHOOK_URL", "")
TEXT = "Your parcel left the depot this morning and will be with you between two and four. " * 2 + "Bye!"

# Taskiq acknowledges a task when its result is saved, which is after it ran: a worker that dies loses none.
# A task that fails is acknowledged, too, so it is the middleware that sends it again, later and later.
broker = AioPikaBroker(
    AMQP_URL,
    # More than the 64 tasks that run at once, so that the next ones are there already.
    qos=200,
    exchange=Exchange(name="bench.taskiq"),
    # A quorum queue survives the loss of a node; it is this broker's default.
    task_queues=[Queue(name="bench.taskiq", type=QueueType.QUORUM)],
    dead_letter_queue=Queue(name="bench.taskiq.dead", type=QueueType.QUORUM),
    delay_queue=Queue(name="bench.taskiq.delay", type=QueueType.QUORUM),
).with_middlewares(
    SmartRetryMiddleware(
        default_retry_label=True,
        default_retry_count=1000,
        default_delay=1,
        use_delay_exponent=True,
        use_jitter=True,
    )
)


@broker.on_event(TaskiqEvents.WORKER_STARTUP)
async def open_client(state: TaskiqState) -> None:
    """Open one client for all tasks of the process; 64 run at once, which is below its limit of 100."""
    state.http = aiohttp.ClientSession()


@broker.on_event(TaskiqEvents.WORKER_SHUTDOWN)
async def close_client(state: TaskiqState) -> None:
    """Close the client."""
    await state.http.close()


# With a name of its own the task is the same one for the worker and for `fill`, which is `__main__`.
@broker.task(task_name="deliver")
async def deliver(message: dict[str, Any]) -> None:
    """POST one message."""
    # Straight from the state: to have it injected would resolve a dependency for every message.
    async with broker.state.http.post(WEBHOOK_URL, json=message) as answer:
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
    """Put tasks onto the queue, many confirms at a time."""
    await broker.startup()
    for start in range(0, count, 500):
        numbers = range(start, min(start + 500, count))
        await asyncio.gather(*(deliver.kiq(body(number)) for number in numbers))
    await broker.shutdown()


if __name__ == "__main__":
    asyncio.run(fill(int(sys.argv[4])))
