"""The delivery log: batched, bounded, and never in the way of deliveries."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime

import pytest

from broker.errors import RegistryUnavailable
from broker.registry.records import Delivery
from consumers import delivery_log
from consumers.delivery_log import DeliveryLog
from consumers.serving import Stop


def delivery(number: int) -> Delivery:
    at = datetime.now(UTC)
    return Delivery(str(number), "wh", "ch", "ch/u", "u", "r", number, "delivered", None, 1, at, at)


class Store:
    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.failures: list[Exception] = []
        self.changed = asyncio.Event()

    async def log(self, deliveries: Sequence[Delivery]) -> None:
        self.changed.set()
        if self.failures:
            raise self.failures.pop(0)
        self.batches.append([delivery.id for delivery in deliveries])

    async def until(self, rows: int) -> None:
        async with asyncio.timeout(10):
            while sum(map(len, self.batches)) < rows:
                self.changed.clear()
                await self.changed.wait()


async def test_many_rows_become_few_writes_in_order() -> None:
    store, stop = Store(), Stop(1)
    log = DeliveryLog(store)
    running = asyncio.create_task(log.run(stop))
    for number in range(1200):
        log.add(delivery(number))
    await store.until(1200)
    assert [row for batch in store.batches for row in batch] == [str(number) for number in range(1200)]
    assert len(store.batches) <= 4
    stop.set()
    await running


async def test_rows_wait_for_a_database_that_is_away() -> None:
    store, stop = Store(), Stop(1)
    store.failures = [RegistryUnavailable()]
    log = DeliveryLog(store)
    running = asyncio.create_task(log.run(stop))
    log.add(delivery(1))
    await store.until(1)
    assert log.lost == 0
    stop.set()
    await running


async def test_rows_that_are_refused_stop_nothing() -> None:
    store, stop = Store(), Stop(1)
    store.failures = [ValueError("no such column")]
    log = DeliveryLog(store)
    running = asyncio.create_task(log.run(stop))
    log.add(delivery(1))
    async with asyncio.timeout(10):
        await store.changed.wait()
    log.add(delivery(2))
    await store.until(1)
    assert log.lost == 1
    stop.set()
    await running


async def test_what_does_not_fit_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delivery_log, "MOST_WAITING", 10)
    store = Store()
    log = DeliveryLog(store)
    for number in range(25):
        log.add(delivery(number))
    assert log.lost == 15
    await log.flush(1)
    assert store.batches == [[str(number) for number in range(15, 25)]]


async def test_what_is_left_at_the_end_is_written_within_its_time() -> None:
    store, stop = Store(), Stop(1)
    log = DeliveryLog(store)
    stop.set()
    await log.run(stop)
    log.add(delivery(1))
    await log.flush(1)
    assert store.batches == [["1"]]
