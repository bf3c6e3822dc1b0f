"""An entry of the directory that is old where nobody was told of a change: what has waited is not tried by it."""

import asyncio
from collections.abc import Iterable, Mapping

import pytest
from delivery_worker_parts import Worker

from broker.errors import RegistryUnavailable
from broker.registry.webhooks import Webhooks
from consumers import directory as directory_module


async def _parked(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> str:
    """Have one delivery fail and wait in the backlog, and what is known of its webhook grow old."""
    hook = await worker.webhooks.create(worker.channel.id, url="https://old.example")
    assert hook is not None
    worker.endpoint.failing[hook.id] = 500
    session = worker.session()
    await session.take(worker.says("ada"))
    await worker.queue.until(1)
    await session.stop(1)
    worker.endpoint.failing.clear()
    worker.endpoint.tried.clear()
    worker.endpoint.most_in_flight.clear()
    monkeypatch.setattr(directory_module, "FRESH_S", 0.0)
    return hook.id


async def test_what_waited_is_tried_at_the_changed_url_only_though_nobody_was_told(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    hook = await _parked(worker, monkeypatch)
    await worker.webhooks.update(hook, {"url": "https://new.example"})
    drainer = worker.drainer()
    await worker.endpoint.until(1)
    assert set(worker.endpoint.most_in_flight) == {"https://new.example"}
    worker.stop.set()
    await drainer


async def test_what_waited_for_a_deleted_webhook_is_not_tried_though_nobody_was_told(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    hook = await _parked(worker, monkeypatch)
    await worker.webhooks.delete(hook)
    drainer = worker.drainer()
    async with asyncio.timeout(20):
        dead: list[object] = []
        while not dead and not worker.endpoint.tried:
            dead = list((await worker.deliveries.page(worker.channel.id, None, 1, status="dead")).items)
    assert worker.endpoint.tried == []
    worker.stop.set()
    await drainer


@pytest.mark.parametrize("hangs", [True, False], ids=["hangs", "refuses"])
async def test_with_the_database_away_what_waited_is_tried_by_the_old_entry_and_waits_for_it_once(
    worker: Worker, monkeypatch: pytest.MonkeyPatch, hangs: bool
) -> None:
    await worker.webhooks.create(worker.channel.id, url="https://old.example")
    directory = worker.shared.directory
    known = await directory.of_channel(worker.channel.id)
    looks = 0

    async def away(store: Webhooks, channel_ids: Iterable[str]) -> Mapping[str, int]:
        nonlocal looks
        looks += 1
        if hangs:
            await asyncio.get_running_loop().create_future()
        raise RegistryUnavailable

    monkeypatch.setattr(Webhooks, "revisions", away)
    monkeypatch.setattr(directory_module, "FRESH_S", 0.0)
    monkeypatch.setattr(directory_module, "LOOK_TIMEOUT_S", 0.2)
    assert directory.fresh(worker.channel.id) is None
    async with asyncio.timeout(5):
        assert await directory.refreshed(worker.channel.id) is known
    assert looks == 1
    assert directory.fresh(worker.channel.id) is known
