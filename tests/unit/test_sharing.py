"""A worker serves exactly its share: what becomes another's is given up first, what comes back is taken again."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumers.assignment import assign
from consumers.serving import Stop
from consumers.sharing import Sharing

PARTITIONS = 8
WORKERS = ("me", "a", "b", "c")


class Told:
    """Workers that live as the test says."""

    me = "me"

    def __init__(self) -> None:
        self.live: frozenset[str] = frozenset()
        self._change = asyncio.Event()

    def say(self, *workers: str) -> None:
        self.live = frozenset(workers)
        self._change.set()

    async def changed(self, known: frozenset[str]) -> frozenset[str]:
        while self.live == known:
            self._change.clear()
            await self._change.wait()
        return self.live


class Servers:
    """Serves partitions until told to stop, and then until what is in flight there has ended."""

    def __init__(self) -> None:
        self.serving: dict[int, Stop] = {}
        self.in_flight: dict[int, asyncio.Event] = {}
        self.broken: dict[int, Exception] = {}

    async def serve_one(self, partition: int, stop: Stop) -> None:
        assert partition not in self.serving, "two hold it at once in one process"
        self.serving[partition] = stop
        try:
            if partition in self.broken:
                raise self.broken[partition]
            await stop.wait()
            if (ended := self.in_flight.get(partition)) is not None:
                await ended.wait()
        finally:
            del self.serving[partition]

    def active(self) -> set[int]:
        return {partition for partition, stop in self.serving.items() if not stop.is_set()}


async def settled() -> None:
    """Let everything run that can run."""
    for _ in range(20):
        await asyncio.sleep(0)


async def test_it_waits_until_it_knows_who_lives_and_then_serves_its_share() -> None:
    told, servers, stop = Told(), Servers(), Stop(5.0)
    running = asyncio.create_task(Sharing(told, PARTITIONS, servers.serve_one, stop).run())
    await settled()
    assert not servers.serving
    told.say("me")
    await settled()
    assert servers.active() == set(range(PARTITIONS))
    assert all(one.grace_s == 5.0 for one in servers.serving.values())
    stop.set()
    await running
    assert not servers.serving


async def test_what_comes_back_while_it_is_given_up_is_taken_again_when_that_is_over() -> None:
    told, servers, stop = Told(), Servers(), Stop(5.0)
    running = asyncio.create_task(Sharing(told, PARTITIONS, servers.serve_one, stop).run())
    told.say("me")
    await settled()
    lost = min(assign(PARTITIONS, ["me", "a"])["a"])
    servers.in_flight[lost] = asyncio.Event()
    told.say("me", "a")
    await settled()
    assert servers.active() == assign(PARTITIONS, ["me", "a"])["me"]
    assert servers.serving.keys() - servers.active() == {lost}, "what is in flight there is finished first"
    told.say("me")
    await settled()
    assert servers.active() == set(range(PARTITIONS)) - {lost}
    servers.in_flight.pop(lost).set()
    await settled()
    assert servers.active() == set(range(PARTITIONS))
    stop.set()
    await running


async def test_stopping_waits_for_what_is_in_flight() -> None:
    told, servers, stop = Told(), Servers(), Stop(5.0)
    running = asyncio.create_task(Sharing(told, PARTITIONS, servers.serve_one, stop).run())
    told.say("me")
    await settled()
    servers.in_flight[3] = asyncio.Event()
    stop.set()
    await settled()
    assert set(servers.serving) == {3}
    assert not running.done()
    servers.in_flight[3].set()
    await running


async def test_a_partition_that_cannot_be_served_ends_all_with_its_reason() -> None:
    told, servers, stop = Told(), Servers(), Stop(5.0)
    servers.broken[5] = ValueError("not this one")
    running = asyncio.create_task(Sharing(told, PARTITIONS, servers.serve_one, stop).run())
    told.say("me")
    with pytest.raises(ValueError, match="not this one"):
        await asyncio.wait_for(running, 10)
    assert not servers.serving


@given(
    st.lists(
        st.one_of(
            st.sets(st.sampled_from(WORKERS[1:])),
            st.tuples(st.sampled_from(["busy", "done"]), st.integers(0, PARTITIONS - 1)),
        ),
        max_size=30,
    )
)
def test_whoever_comes_and_goes_it_ends_up_with_its_share(steps: list[set[str] | tuple[str, int]]) -> None:
    async def play() -> None:
        told, servers, stop = Told(), Servers(), Stop(5.0)
        running = asyncio.create_task(Sharing(told, PARTITIONS, servers.serve_one, stop).run())
        told.say("me")
        for step in steps:
            if isinstance(step, set):
                told.say("me", *step)
            elif step[0] == "busy":
                servers.in_flight.setdefault(step[1], asyncio.Event())
            elif step[1] in servers.in_flight:
                servers.in_flight.pop(step[1]).set()
            await settled()
            assert servers.active() <= assign(PARTITIONS, told.live)["me"]
        for ended in servers.in_flight.values():
            ended.set()
        await settled()
        assert servers.active() == assign(PARTITIONS, told.live)["me"]
        stop.set()
        await running

    asyncio.run(play())
