"""The cache of doors: quick, never older than a second, and never wrong about what this process changed."""

import asyncio
from datetime import UTC, datetime

import pytest

from broker.api.doors import BELIEVED_S, Doors
from broker.errors import RegistryUnavailable
from broker.registry.channels import Door
from broker.registry.records import Channel


def door(name: str) -> Door:
    channel = Channel(name, name, {"type": "echo"}, "v", 1, datetime(2026, 1, 1, tzinfo=UTC))
    return Door(channel, frozenset({name}))


class Source:
    """Channels that a test opens and closes; a read waits while `gate` is shut."""

    def __init__(self, **doors: Door) -> None:
        self.doors = doors
        self.reads: list[str] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.away = False

    async def door(self, channel_id: str) -> Door | None:
        self.reads.append(channel_id)
        found = self.doors.get(channel_id)
        await self.gate.wait()
        if self.away:
            raise RegistryUnavailable
        return found


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


async def test_within_a_second_the_registry_is_asked_once_also_for_what_is_not_there():
    source, clock = Source(a=door("a")), Clock()
    doors = Doors(source, clock=clock)
    assert [await doors.of("a"), await doors.of("a"), await doors.of("b"), await doors.of("b")] == [
        door("a"),
        door("a"),
        None,
        None,
    ]
    assert source.reads == ["a", "b"]
    clock.now += BELIEVED_S
    source.doors = {"b": door("b")}
    assert await doors.of("a") is None
    assert await doors.of("b") == door("b")


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
    source.doors = {}
    doors.forget("a")
    source.gate.set()
    assert await doors.of("a") is None
    await old
    assert await doors.of("a") is None


async def test_the_memory_is_bounded():
    source, clock = Source(), Clock()
    doors = Doors(source, most=2, clock=clock)
    for name in ("a", "b", "c", "c", "b", "a"):
        await doors.of(name)
    assert source.reads == ["a", "b", "c", "a"]


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
