"""The doors: which channels exist and which tokens open them, cached for the hot path.

What another process changes is seen after a second; what this one changes, at once.
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Protocol

from broker.errors import RegistryUnavailable
from broker.registry.channels import Door

#: How long an entry is believed, also one that says that there is no such channel, in seconds.
BELIEVED_S = 1.0
#: How long a read may take, in seconds.
READ_S = 1.5
#: Entries kept; the one that was read longest ago goes first.
MOST = 10_000


class DoorSource(Protocol):
    """Where doors are kept."""

    async def door(self, channel_id: str) -> Door | None:
        """Return a channel's door, or None where there is no such channel."""
        ...


class Doors:
    """Answers which tokens open a channel; one object for a process."""

    def __init__(
        self, source: DoorSource, *, most: int = MOST, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._source = source
        self._most = most
        self._clock = clock
        self._entries: OrderedDict[str, tuple[float, Door | None]] = OrderedDict()
        self._reads: dict[str, asyncio.Task[Door | None]] = {}

    async def of(self, channel_id: str) -> Door | None:
        """Return a channel's door, at most a second old; raises RegistryUnavailable without a database."""
        entry = self._entries.get(channel_id)
        if entry is not None and self._clock() - entry[0] < BELIEVED_S:
            return entry[1]
        task = self._reads.get(channel_id)
        if task is None:
            # One read for all who ask at the same moment, however many they are.
            task = self._reads[channel_id] = asyncio.create_task(self._read(channel_id))
        return await asyncio.shield(task)

    def at_hand(self, channel_id: str) -> Door | None:
        """Return a channel's door where it is known and at most a second old; None says nothing of the channel."""
        entry = self._entries.get(channel_id)
        return entry[1] if entry is not None and self._clock() - entry[0] < BELIEVED_S else None

    def forget(self, channel_id: str) -> None:
        """Read a channel anew at the next question; a read that is under way counts as old."""
        self._entries.pop(channel_id, None)
        self._reads.pop(channel_id, None)

    async def close(self) -> None:
        """End the reads that are under way."""
        reads = list(self._reads.values())
        for task in reads:
            task.cancel()
        await asyncio.gather(*reads, return_exceptions=True)

    async def _read(self, channel_id: str) -> Door | None:
        task = asyncio.current_task()
        began = self._clock()
        try:
            async with asyncio.timeout(READ_S):
                door = await self._source.door(channel_id)
            if self._reads.get(channel_id) is task:
                self._entries[channel_id] = (began, door)
                self._entries.move_to_end(channel_id)
                while len(self._entries) > self._most:
                    self._entries.popitem(last=False)
            return door
        except TimeoutError:
            # Not left to the database's own patience: all who ask for this channel wait for this one read.
            raise RegistryUnavailable("The database does not answer in time.") from None
        finally:
            if self._reads.get(channel_id) is task:
                del self._reads[channel_id]
