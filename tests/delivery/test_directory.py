"""What is known of channels: bounded, gone when it changed, and of use while the database is away."""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime

from broker.errors import RegistryUnavailable
from broker.registry.records import Channel, ChannelWebhooks
from consumers.directory import Directory


def entry(channel_id: str, revision: int = 1) -> ChannelWebhooks:
    channel = Channel(channel_id, "test", {}, "v", revision, datetime(2026, 1, 1, tzinfo=UTC))
    return ChannelWebhooks(channel, [])


class Source:
    """Channels that a test changes; an answer is made at once and given while `gate` is open."""

    def __init__(self, *channel_ids: str) -> None:
        self.kept = {each: entry(each) for each in channel_ids}
        self.reads: list[Sequence[str]] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.asked = asyncio.Event()
        self.away = False

    async def of_channels(self, channel_ids: Iterable[str]) -> Mapping[str, ChannelWebhooks]:
        self.reads.append(list(channel_ids))
        found = {each: self.kept[each] for each in channel_ids if each in self.kept}
        await self._answer()
        return found

    async def revisions(self, channel_ids: Iterable[str]) -> Mapping[str, int]:
        found = {each: self.kept[each].channel.revision for each in channel_ids if each in self.kept}
        await self._answer()
        return found

    async def _answer(self) -> None:
        self.asked.set()
        await self.gate.wait()
        if self.away:
            raise RegistryUnavailable


async def test_a_read_that_began_before_a_change_does_not_bring_back_what_was_so_before() -> None:
    source = Source("a")
    directory = Directory(source)
    source.gate.clear()
    early = asyncio.create_task(directory.of_channel("a"))
    await asyncio.wait_for(source.asked.wait(), 10)
    source.kept["a"] = entry("a", 2)
    directory.forget("a")
    source.gate.set()
    await early
    assert await directory.of_channel("a") == entry("a", 2)
    await directory.close()


async def test_what_changed_is_not_served_but_while_the_database_is_away() -> None:
    source = Source("a", "b")
    directory = Directory(source)
    assert await directory.of_channel("a") == entry("a")
    assert await directory.of_channel("b") == entry("b")
    source.kept = {"a": entry("a", 2)}
    for channel_id in ("a", "b"):
        directory.forget(channel_id)
        assert directory.known(channel_id) is None
    assert await directory.of_channel("a") == entry("a", 2)
    assert await directory.of_channel("b") is None
    source.away = True
    directory.forget("a")
    async with asyncio.timeout(10):
        assert await directory.of_channel("a") == entry("a", 2)
    await directory.close()


async def test_the_channel_that_was_used_longest_ago_goes_first() -> None:
    source = Source("a", "b", "c")
    directory = Directory(source, most=2)
    for channel_id in ("a", "b", "a", "c"):
        assert await directory.of_channel(channel_id) == entry(channel_id)
    assert [directory.known(each) is not None for each in ("a", "b", "c")] == [True, False, True]
    await directory.close()
