"""Message parking: what the bot worker asks of the registry about messages that wait outside of memory.

What all partitions of a process ask for at the same time is one transaction. Outages of the database are outlasted.
"""

import asyncio
from collections.abc import Sequence
from typing import Protocol

from broker.batching import Batcher
from broker.ending import END_S
from broker.registry.waiting_messages import WaitingMessage, WaitingPage
from consumers.outage import outlast

#: Lanes that are written or read in one transaction, and messages of a lane that are read at a time.
LANES_A_WRITE = 128
LANES_A_READ = 64
PAGE = 20
#: How long deletions wait for others, in seconds: nobody waits for one.
DELETE_LINGER_S = 0.02


class WaitingStore(Protocol):
    """Where messages wait; see broker.registry.waiting_messages."""

    async def add(self, messages: Sequence[WaitingMessage]) -> list[int]:
        """Put messages behind those of their lanes; returns the number of each."""
        ...

    async def channels_of(self, partition: int) -> set[str]:
        """Return the channels that have messages waiting in a partition."""
        ...

    async def lanes(self, partition: int, channel_id: str, after: int, limit: int) -> list[tuple[int, str]]:
        """Return the numbers that wait in a partition for a channel, each with its lane."""
        ...

    async def read(self, lanes: Sequence[tuple[str, int]], limit: int) -> list[WaitingPage]:
        """Take the next messages of lanes in hand."""
        ...

    async def done(self, numbers: Sequence[int]) -> None:
        """Delete messages that are done."""
        ...


class MessageParking:
    """Puts messages into the registry, and takes them out. Close it when nobody uses it any more."""

    def __init__(self, store: WaitingStore) -> None:
        self._store = store
        self._adds: Batcher[Sequence[WaitingMessage], Sequence[int]] = Batcher(
            self._add, LANES_A_WRITE, to_the_end=True, size=_size
        )
        self._reads: Batcher[tuple[str, int], WaitingPage] = Batcher(self._read, LANES_A_READ)
        self._done: list[int] = []
        self._deleting: asyncio.Task[None] | None = None

    async def add(self, messages: Sequence[WaitingMessage]) -> Sequence[int]:
        """Put messages behind those of their lane; returns the number of each, in the same order."""
        return await outlast(lambda: self._adds.submit(messages), "bot.parking")

    async def channels_of(self, partition: int) -> set[str]:
        """Return the channels that have messages waiting in a partition."""
        return await outlast(lambda: self._store.channels_of(partition), "bot.waiting")

    async def lanes(self, partition: int, channel_id: str, after: int, limit: int) -> list[tuple[int, str]]:
        """Return the numbers above `after` that wait in a partition for a channel, in order, each with its lane."""
        return await outlast(lambda: self._store.lanes(partition, channel_id, after, limit), "bot.waiting")

    async def read(self, conversation_key: str, after: int) -> WaitingPage:
        """Take a page of a lane in hand, from the number after that one on."""
        return await outlast(lambda: self._reads.submit((conversation_key, after)), "bot.waiting")

    def done(self, number: int) -> None:
        """Have a message deleted soon. What is not deleted when this process dies is found to have its turn."""
        self._done.append(number)
        if self._deleting is None:
            self._deleting = asyncio.create_task(self._delete_soon())

    async def close(self) -> None:
        """Wait for what is being written."""
        for batcher in (self._adds, self._reads):
            await batcher.close()
        if self._deleting is not None:
            # What is not deleted is found to have its turn.
            await asyncio.wait({self._deleting}, timeout=END_S)
        if self._deleting is not None:
            self._deleting.cancel()

    async def _delete_soon(self) -> None:
        try:
            await asyncio.sleep(DELETE_LINGER_S)
            while self._done:
                numbers, self._done = self._done, []
                await outlast(lambda: self._store.done(numbers), "bot.waiting")  # noqa: B023 - awaited here
        finally:
            self._deleting = None

    async def _add(self, lanes: Sequence[Sequence[WaitingMessage]]) -> list[Sequence[int]]:
        numbers = iter(await self._store.add([message for lane in lanes for message in lane]))
        return [[next(numbers) for _ in lane] for lane in lanes]

    async def _read(self, lanes: Sequence[tuple[str, int]]) -> list[WaitingPage]:
        return await self._store.read(lanes, PAGE)


def _size(messages: Sequence[WaitingMessage]) -> int:
    return sum([len(message.body) for message in messages])
