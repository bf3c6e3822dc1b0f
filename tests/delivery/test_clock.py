"""The clock is set back: what waits in the backlog waits no longer than it would have."""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from delivery_worker_parts import QUICK, Worker
from hypothesis import given
from hypothesis import strategies as st

from consumers.clock_watch import ClockWatch
from consumers.retry import Policy

#: Modules that tell the time by the wall clock where schedules of the backlog are written and read.
READERS = (
    "consumers.backlog",
    "consumers.delivery_worker",
    "broker.registry.backlog",
    "broker.registry.redrive",
)


class Clock:
    """The wall clock, which can be set."""

    def __init__(self) -> None:
        self.ahead = timedelta()

    def now(self) -> datetime:
        """Tell the time."""
        return datetime.now(UTC) + self.ahead


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Provide a clock that is an hour ahead of the right time."""
    clock = Clock()
    clock.ahead = timedelta(hours=1)
    for reader in READERS:
        monkeypatch.setattr(f"{reader}.now", clock.now)
    return clock


@pytest.mark.parametrize("when", ["while the worker runs", "while it does not"])
async def test_a_clock_that_is_set_back_holds_up_no_backlog(worker: Worker, clock: Clock, when: str) -> None:
    hook = await worker.webhooks.create(worker.channel.id, url="https://example.com")
    assert hook is not None
    worker.endpoint.failing[hook.id] = 503
    worker = worker_with(worker, 0.3)
    session = worker.session()
    drainer = worker.drainer() if when == "while the worker runs" else None
    await session.take([*worker.says("ada", 2), *worker.says("bob", 2)])
    await worker.queue.until(4)
    assert len(await worker.parked()) == 2
    if drainer is not None:
        # Its lanes were held and let go of at least once, so that a drainer wrote when they are due.
        async with asyncio.timeout(20):
            while len(worker.endpoint.tried) < 10:
                worker.endpoint.changed.clear()
                await worker.endpoint.changed.wait()
    clock.ahead = timedelta()
    worker.endpoint.failing.clear()
    if drainer is None:
        drainer = worker.drainer()
    await worker.endpoint.until(4)
    assert [worker.order(hook.id, user) for user in ("ada", "bob")] == [[1, 2], [1, 2]]
    worker.stop.set()
    await drainer
    await session.stop(1)


async def test_a_schedule_is_kept_though_the_clock_was_set_back(worker: Worker, clock: Clock) -> None:
    hook = await worker.webhooks.create(worker.channel.id, url="https://example.com")
    assert hook is not None
    worker.endpoint.failing[hook.id] = 503
    worker = worker_with(worker, 600.0)
    session = worker.session()
    await session.take(worker.says("ada"))
    await worker.queue.until(1)
    clock.ahead = timedelta()
    assert await worker.backlog.bring_back(240.0) == 1
    assert await worker.backlog.bring_back(240.0) == 0
    assert await worker.backlog.due() == [], "it is not due at once"
    clock.ahead = timedelta(seconds=601)
    assert await worker.backlog.due() == [hook.id]
    await session.stop(1)


async def test_clocks_that_are_a_little_apart_change_no_schedule(worker: Worker, clock: Clock) -> None:
    hook = await worker.webhooks.create(worker.channel.id, url="https://example.com")
    assert hook is not None
    worker.endpoint.failing[hook.id] = 503
    worker = worker_with(worker, 0.001)
    session = worker.session()
    await session.take(worker.says("ada"))
    await worker.queue.until(1)
    (lane,) = await worker.backlog.claim({hook.id: 1}, 120.0)
    clock.ahead -= timedelta(seconds=60)
    assert await worker.backlog.bring_back(240.0) == 0
    assert await worker.backlog.claim({hook.id: 1}, 120.0) == [], "it is held"
    assert lane.webhook_id == hook.id
    await session.stop(1)


def worker_with(worker: Worker, tail_s: float) -> Worker:
    policy = Policy(replace(QUICK, head=(0.001,), tail=(tail_s,) * 30), 86_400.0)
    return replace(worker, shared=replace(worker.shared, deliverer=worker.deliverer(policy)))


def test_a_step_back_is_looked_into_until_what_was_reckoned_before_it_is_written() -> None:
    watch = ClockWatch(120.0)
    asked = [watch.set_back(1e9 + at, at) for at in range(100)]
    assert asked == [True] + [False] * 99, "nobody knows what was before the first question"
    asked = [watch.set_back(1e9 - 3600 + at, at) for at in range(100, 600)]
    assert asked[0]
    assert 5 < sum(asked) < 50
    assert not any(asked[150:])


@given(steps=st.lists(st.tuples(st.floats(0, 100), st.floats(0, 7200)), max_size=20))
def test_a_clock_that_only_goes_on_or_is_set_forward_is_not_looked_into(
    steps: list[tuple[float, float]],
) -> None:
    watch, wall_s, monotonic_s = ClockWatch(120.0), 1e9, 0.0
    assert watch.set_back(wall_s, monotonic_s)
    for passed, step in steps:
        wall_s, monotonic_s = wall_s + passed + step, monotonic_s + passed
        assert not watch.set_back(wall_s, monotonic_s)
