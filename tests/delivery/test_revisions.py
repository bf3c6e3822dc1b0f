"""A database that is older than the responses, as after restoring a dump: it is right, and nothing spins."""

import asyncio
from dataclasses import replace

import pytest
from delivery_worker_parts import Worker, counted_reads, until
from sqlalchemy import delete, update

from broker.registry.tables import channels, webhooks
from consumers import directory as directory_module


async def test_a_response_above_the_databases_revision_is_delivered_after_few_reads_and_holds_up_no_other(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    channel, _ = await worker.channels.create("innocent", {"type": "echo"})
    beside = replace(worker, channel=channel)
    hooks = [
        await worker.webhooks.create(each, url="https://example.com")
        for each in (channel.id, worker.channel.id)
    ]
    innocent, ahead = [hook.id for hook in hooks if hook is not None]
    reads = counted_reads(monkeypatch)
    session = worker.session()
    taking = asyncio.create_task(
        session.take([*worker.says("ada", 2, revision=10**15), *beside.says("bob", 2)])
    )
    await asyncio.wait({taking}, timeout=10)
    await worker.queue.until(4)
    # As they are where a dump was restored, and what the database has is not lower than what they name.
    assert [webhook for webhook, _, _ in worker.endpoint.delivered] == [innocent] * 2 + [ahead] * 2
    assert len(reads) <= 10
    # Nobody waits for the same again, nor reads for each response.
    reads.clear()
    async with asyncio.timeout(5):
        await session.take(worker.says("ada", 100, revision=10**15))
        await worker.queue.until(104)
    assert len(reads) <= 2
    # What is registered from now on is found, although a lower revision than the one that was named stands for it.
    new = await worker.webhooks.create(worker.channel.id, url="https://example.com")
    now = await worker.channels.get(worker.channel.id)
    assert new is not None
    assert now is not None
    await session.take(worker.says("ada", revision=now.revision))
    await worker.queue.until(105)
    assert worker.order(new.id, "ada") == [103]
    assert worker.order(ahead, "ada") == list(range(1, 104))
    await session.stop(1)


async def test_webhooks_that_a_restored_database_does_not_have_are_not_served_from_memory(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(directory_module, "FRESH_S", 0.0)
    hook = await worker.webhooks.create(worker.channel.id, url="https://example.com")
    directory = worker.shared.directory
    known = await directory.of_channel(worker.channel.id, 2)
    assert known is not None
    assert [each.id for each in known.webhooks] == [hook and hook.id]
    async with worker.backlog._db.write() as connection:
        await connection.execute(delete(webhooks))
        await connection.execute(update(channels).values(revision=1))

    def dropped() -> bool:
        entry = directory.known(worker.channel.id)
        return entry is not None and entry.webhooks == [] and entry.channel.revision == 1

    await until(dropped, "the directory has what the database has")


async def test_what_has_waited_is_not_tried_by_an_entry_that_is_old_though_nobody_announced_a_change(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    hook = await worker.webhooks.create(worker.channel.id, url="https://example.com/old")
    assert hook is not None
    directory = worker.shared.directory
    await directory.of_channel(worker.channel.id)
    await worker.webhooks.update(hook.id, {"url": "https://example.com/new"})
    assert directory.fresh(worker.channel.id) is not None, "within its time an entry costs nothing"
    monkeypatch.setattr(directory_module, "FRESH_S", 0.0)
    assert directory.fresh(worker.channel.id) is None
    found = await directory.refreshed(worker.channel.id)
    assert found is not None
    assert [each.url for each in found.webhooks] == ["https://example.com/new"]
