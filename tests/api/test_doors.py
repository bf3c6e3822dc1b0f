"""The cache of doors: quick, never unconfirmed for longer than is promised, never wrong about what was told of."""

import asyncio
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime

import pytest

from broker.api.doors import BELIEVED_S, FRESH_S, NONE_BELIEVED_S, Doors
from broker.errors import RegistryUnavailable
from broker.registry.channels import Door, DoorState
from broker.registry.records import Channel


def door(name: str) -> Door:
    channel = Channel(name, name, {"type": "echo"}, "v", 1, datetime(2026, 1, 1, tzinfo=UTC))
    return Door(channel, frozenset({name}))


class Source:
    """Channels that a test opens and closes; a read waits while `gate` is shut."""

    def __init__(self, **doors: Door) -> None:
        self.kept = doors
        self.reads: list[str] = []
        self.questions = 0
        self.looks: list[list[str]] = []
        self._look = asyncio.Event()
        self.gate = asyncio.Event()
        self.gate.set()
        self.away = False

    async def doors(self, channel_ids: Iterable[str]) -> Mapping[str, Door]:
        self.reads += channel_ids
        self.questions += 1
        found = {each: self.kept[each] for each in channel_ids if each in self.kept}
        await self.gate.wait()
        if self.away:
            raise RegistryUnavailable
        return found

    async def states(self, channel_ids: Iterable[str]) -> Mapping[str, DoorState]:
        self.looks.append(sorted(channel_ids))
        self._look.set()
        found = {each: self.kept[each].state for each in channel_ids if each in self.kept}
        await self.gate.wait()
        if self.away:
            raise RegistryUnavailable
        return found

    async def looked(self) -> None:
        """Wait for the next look, and, while the gate is open, until it is taken in."""
        async with asyncio.timeout(10):
            await self._look.wait()
        self._look.clear()
        for _ in range(10):
            await asyncio.sleep(0)


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


async def test_the_registry_is_asked_once_also_for_what_is_not_there():
    source, clock = Source(a=door("a")), Clock()
    doors = Doors(source, clock=clock)
    assert [await doors.of(name) for name in ("a", "a", "b", "b")] == [door("a"), door("a"), None, None]
    assert source.reads == ["a", "b"]
    clock.now += NONE_BELIEVED_S
    source.kept = {"b": door("b")}
    assert await doors.of("b") == door("b")
    clock.now += BELIEVED_S
    assert await doors.of("a") is None


async def test_many_channels_are_read_at_once():
    names = [f"ch_{number}" for number in range(100)]
    source = Source(**{name: door(name) for name in names})
    assert await asyncio.gather(*map(Doors(source).of, names)) == [door(name) for name in names]
    assert source.questions == 1


async def test_many_who_ask_at_once_share_a_read():
    source = Source(a=door("a"))
    source.gate.clear()
    doors = Doors(source)
    asking = [asyncio.create_task(doors.of("a")) for _ in range(100)]
    await asyncio.sleep(0)
    source.gate.set()
    assert await asyncio.gather(*asking) == [door("a")] * 100
    assert source.reads == ["a"]


async def test_who_gives_up_does_not_take_the_read_from_the_others():
    source = Source(a=door("a"))
    source.gate.clear()
    doors = Doors(source)
    first, second = asyncio.create_task(doors.of("a")), asyncio.create_task(doors.of("a"))
    await asyncio.sleep(0)
    first.cancel()
    source.gate.set()
    assert await second == door("a")


async def test_a_read_that_began_before_a_change_is_not_kept():
    source = Source(a=door("a"))
    doors = Doors(source, clock=Clock())
    source.gate.clear()
    old = asyncio.create_task(doors.of("a"))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert source.reads == ["a"]
    source.kept = {}
    doors.forget("a")
    source.gate.set()
    assert await doors.of("a") is None
    await old
    assert await doors.of("a") is None


async def test_the_door_that_was_used_longest_ago_goes_first_and_strangers_push_none_out():
    names = ("a", "b", "c")
    source, clock = Source(**{name: door(name) for name in names}), Clock()
    doors = Doors(source, most=2, most_strangers=2, clock=clock)
    for name in ("a", "b", "a", "c", "a", "x", "y", "z", "z", "y", "x"):
        await doors.of(name)
    assert source.reads == ["a", "b", "c", "x", "y", "z", "x"]
    assert (doors.at_hand("a"), doors.at_hand("b"), doors.at_hand("c")) == (door("a"), None, door("c"))


async def test_doors_in_use_are_served_while_they_are_looked_at_together():
    names = [f"ch_{number}" for number in range(100)]
    source, clock = Source(**{name: door(name) for name in names}), Clock()
    doors = Doors(source, clock=clock)
    assert await asyncio.gather(*map(doors.of, names)) == [door(name) for name in names]
    for _ in range(10):
        clock.now += BELIEVED_S - FRESH_S
        assert [doors.at_hand(name) for name in names] == [door(name) for name in names]
        await source.looked()
    assert source.looks == [sorted(names)] * 10
    assert source.reads == names


async def test_a_door_that_was_shut_is_refused_after_the_next_look_though_nobody_told():
    source, clock = Source(a=door("a"), b=door("b")), Clock()
    doors = Doors(source, clock=clock)
    await asyncio.gather(doors.of("a"), doors.of("b"))
    # By hand, so that no revision was raised.
    source.kept = {"a": Door(source.kept["a"].channel, frozenset())}
    clock.now += FRESH_S
    assert doors.at_hand("a") == door("a")
    assert doors.at_hand("b") == door("b")
    await source.looked()
    assert doors.at_hand("a") == source.kept["a"]
    assert doors.at_hand("b") is None
    assert await doors.of("b") is None


async def test_without_a_database_a_door_is_believed_for_so_long_and_no_longer():
    source, clock = Source(a=door("a")), Clock()
    doors = Doors(source, clock=clock)
    await doors.of("a")
    source.away = True
    clock.now += BELIEVED_S - 0.1
    assert await doors.of("a") == door("a")
    await source.looked()
    clock.now += 0.1
    assert doors.at_hand("a") is None
    with pytest.raises(RegistryUnavailable):
        await doors.of("a")


async def test_a_look_that_began_before_a_change_confirms_nothing():
    source, clock = Source(a=door("a")), Clock()
    doors = Doors(source, clock=clock)
    await doors.of("a")
    source.gate.clear()
    clock.now += FRESH_S
    assert doors.at_hand("a") == door("a")
    await source.looked()
    doors.forget("a")
    source.kept = {}
    source.gate.set()
    assert await doors.of("a") is None
    assert doors.at_hand("a") is None


async def test_an_outage_is_told_and_not_kept():
    source = Source(a=door("a"))
    doors = Doors(source, clock=Clock())
    source.away = True
    with pytest.raises(RegistryUnavailable):
        await doors.of("a")
    source.away = False
    assert await doors.of("a") == door("a")


async def test_closing_ends_reads_under_way():
    source = Source(a=door("a"))
    source.gate.clear()
    doors = Doors(source)
    asking = asyncio.create_task(doors.of("a"))
    await asyncio.sleep(0)
    await doors.close()
    with pytest.raises(asyncio.CancelledError):
        await asking
