"""The doors: which channels exist and which tokens open them, cached for the hot path.

A known door is served at once. One in use that nothing has confirmed for a second is looked at in the background, by
its channel's revision and tokens, many at a time; what is announced as changed is forgotten; and nothing is served
for longer than BELIEVED_S after its last confirmation. What this process changed is seen at once.
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Protocol

from broker.batching import Batcher
from broker.errors import RegistryUnavailable
from broker.registry.channels import Door, DoorState

#: How old a door may be before it is looked at in the background, in seconds.
FRESH_S = 1.0
#: How long a door is served after its last confirmation, in seconds; it is read anew before it serves then.
BELIEVED_S = 30.0
#: How long it is believed that there is no such channel, in seconds.
NONE_BELIEVED_S = 1.0
#: How long a look waits for others, in seconds.
LINGER_S = 0.05
#: How long a read may take, in seconds.
READ_S = 1.5
#: Doors kept, of about 1.2 KB each; the one that was used longest ago goes first.
MOST = 100_000
#: Ids kept of which it is known that there is no such channel: apart, so that strangers push no door out.
MOST_STRANGERS = 10_000


class DoorSource(Protocol):
    """Where doors are kept."""

    async def doors(self, channel_ids: Iterable[str]) -> Mapping[str, Door]:
        """Return channels' doors by their ids; those that do not exist are not in it."""
        ...

    async def states(self, channel_ids: Iterable[str]) -> Mapping[str, DoorState]:
        """Return what doors' states are now, by their channels' ids; those that do not exist are not in it."""
        ...


class Doors:
    """Answers which tokens open a channel; one object for a process."""

    def __init__(
        self,
        source: DoorSource,
        *,
        most: int = MOST,
        most_strangers: int = MOST_STRANGERS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._source = source
        self._most = most
        self._most_strangers = most_strangers
        self._clock = clock
        #: With the moment when each was last known to be right: when that was asked.
        self._entries: OrderedDict[str, tuple[float, Door]] = OrderedDict()
        self._strangers: OrderedDict[str, float] = OrderedDict()
        self._reads: Batcher[str, Door | None] = Batcher(self._read)
        self._looks: Batcher[str, None] = Batcher(self._look, linger_s=LINGER_S)
        #: Reads that are under way or wait for others, and channels that are looked at.
        self._reading: dict[str, asyncio.Future[Door | None]] = {}
        self._looking: set[str] = set()
        #: For each question that is with the database, the channels that were forgotten since it was asked.
        self._forgotten: list[set[str]] = []

    async def of(self, channel_id: str) -> Door | None:
        """Return a channel's door; raises RegistryUnavailable where it has to be read and the database is away."""
        door = self.at_hand(channel_id)
        if door is not None:
            return door
        since = self._strangers.get(channel_id)
        if since is not None and self._clock() - since < NONE_BELIEVED_S:
            return None
        reading = self._reading.get(channel_id)
        if reading is None:
            # One read for all who ask at the same moment, however many they are.
            reading = self._reading[channel_id] = self._reads.put(channel_id)
            reading.add_done_callback(lambda ended: self._end_reading(channel_id, ended))
        try:
            async with asyncio.timeout(READ_S):
                return await asyncio.shield(reading)
        except TimeoutError:
            # Not left to the database's own patience: the sender does not wait for so long.
            raise RegistryUnavailable("The database does not answer in time.") from None

    def at_hand(self, channel_id: str) -> Door | None:
        """Return a channel's door where it is known and believed; None says nothing of the channel."""
        entry = self._entries.get(channel_id)
        if entry is None:
            return None
        age = self._clock() - entry[0]
        if age >= FRESH_S:
            if age >= BELIEVED_S:
                return None
            if channel_id not in self._looking:
                self._looking.add(channel_id)
                self._looks.put(channel_id)
        self._entries.move_to_end(channel_id)
        return entry[1]

    def forget(self, channel_id: str) -> None:
        """Read a channel anew at the next question; a read that is under way counts as old."""
        self._entries.pop(channel_id, None)
        self._strangers.pop(channel_id, None)
        self._reading.pop(channel_id, None)
        for forgotten in self._forgotten:
            forgotten.add(channel_id)

    async def close(self) -> None:
        """End the reads that are under way."""
        await self._reads.abandon()
        await self._looks.abandon()

    def _end_reading(self, channel_id: str, ended: "asyncio.Future[Door | None]") -> None:
        if self._reading.get(channel_id) is ended:
            del self._reading[channel_id]
        if not ended.cancelled():
            # Taken note of, for all who asked may have gone.
            ended.exception()

    async def _read(self, channel_ids: Sequence[str]) -> list[Door | None]:
        with self._asking() as (asked, forgotten):
            try:
                async with asyncio.timeout(READ_S):
                    found = await self._source.doors(channel_ids)
            except TimeoutError:
                raise RegistryUnavailable("The database does not answer in time.") from None
        for channel_id in channel_ids:
            if channel_id not in forgotten:
                self._keep(channel_id, asked, found.get(channel_id))
        return [found.get(channel_id) for channel_id in channel_ids]

    async def _look(self, channel_ids: Sequence[str]) -> list[None]:
        """Confirm those that are right, and read the others anew."""
        try:
            with self._asking() as (asked, forgotten):
                async with asyncio.timeout(READ_S):
                    states = await self._source.states(channel_ids)
            changed = []
            for channel_id in channel_ids:
                entry = self._entries.get(channel_id)
                if entry is None or channel_id in forgotten:
                    continue
                if states.get(channel_id) == entry[1].state:
                    # In place: to be looked at is no use of it.
                    self._entries[channel_id] = (max(asked, entry[0]), entry[1])
                else:
                    changed.append(channel_id)
            if changed:
                await self._read(changed)
        except (RegistryUnavailable, TimeoutError):
            # What is known serves on for as long as it is believed; the next who uses it has it looked at again.
            pass
        finally:
            self._looking.difference_update(channel_ids)
        return [None] * len(channel_ids)

    @contextmanager
    def _asking(self) -> Iterator[tuple[float, set[str]]]:
        forgotten: set[str] = set()
        self._forgotten.append(forgotten)
        try:
            yield self._clock(), forgotten
        finally:
            # By identity: two that are empty are equal.
            self._forgotten = [each for each in self._forgotten if each is not forgotten]

    def _keep(self, channel_id: str, asked: float, door: Door | None) -> None:
        known = self._entries.get(channel_id)
        if known is not None and known[0] > asked:
            return
        if door is None:
            self._entries.pop(channel_id, None)
            self._strangers[channel_id] = asked
            self._strangers.move_to_end(channel_id)
            if len(self._strangers) > self._most_strangers:
                self._strangers.popitem(last=False)
            return
        self._strangers.pop(channel_id, None)
        self._entries[channel_id] = (asked, door)
        self._entries.move_to_end(channel_id)
        if len(self._entries) > self._most:
            self._entries.popitem(last=False)
