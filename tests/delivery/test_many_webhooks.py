"""A channel with very many webhooks costs what they cost, and no more: nothing grows faster than their number."""

import asyncio
import time

import pytest
from delivery_worker_parts import Worker

from broker.models.records import now
from broker.registry.tables import webhooks as table
from consumers import gates

FEW, MANY = 250, 3_000
#: How much more one of many may cost than one of few. Were each to be looked for among all, it would be twelve times.
MOST_DEARER = 3.0


async def register(worker: Worker, number: int) -> None:
    """Give a new channel so many webhooks at once, as it may have them from before there was a limit."""
    worker.channel, _ = await worker.channels.create(f"with {number}", {"type": "echo"})
    rows = [
        {
            "id": f"wh-{number}-{each}",
            "channel_id": worker.channel.id,
            "url": f"https://host-{each}.example/",
            "events": ["response.#"],
            "headers": {},
            "secret": "whsec_",
            "enabled": True,
            "created_at": now(),
        }
        for each in range(number)
    ]
    async with worker.backlog._db.write() as connection:
        await connection.execute(table.insert(), rows)


async def test_the_work_for_a_response_does_not_grow_faster_than_its_webhooks(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    # All are in use, and more than are kept otherwise.
    monkeypatch.setattr(gates, "MOST_GATES", FEW)
    took: dict[int, float] = {}
    for number in (FEW, MANY):
        await register(worker, number)
        for each in range(number):
            # All in trouble: each attempt asks whether they crowd out others.
            worker.endpoint.failing[f"wh-{number}-{each}"] = 500
        session = worker.session()
        await worker.shared.directory.of_channel(worker.channel.id)
        began, acked = time.process_time(), len(worker.queue.acked)
        await session.take(worker.says(f"user-of-{number}"))
        await asyncio.wait_for(worker.queue.until(acked + 1), 60)
        took[number] = (time.process_time() - began) / number
        await session.stop(0)
    assert took[MANY] < MOST_DEARER * took[FEW], took
