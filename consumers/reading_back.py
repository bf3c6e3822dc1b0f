"""Reading back: takes up lanes that wait in the registry and have nothing in memory, the one that came first first.

Fair by channel: each has room of its own, and no more of its lanes are taken up than that.

Before anything of a partition is read, a message has to come on its queue: it proves that nobody else holds that, so
that all that an earlier holder wrote is there to be read, and nobody else works on it. Where messages wait and none
comes, the session sends itself one.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

import structlog

from broker.errors import BrokerUnavailable
from broker.port import Envelope
from broker.topology import INBOUND, inbound_key

log = structlog.get_logger()

#: The body of the message that a session sends itself. Nobody else can: what comes to a partition is valid.
WAKE = b'{"postbote":"wake"}'
#: A channel of no registry, for its routing key.
WAKE_CHANNEL = "postbote"
#: Seconds until a session sends itself another, at first and at most: the one before may have come to another.
WAKE_AGAIN_S = 2.0
WAKE_RARELY_S = 10.0
#: Numbers looked at in one reading.
LOOKED_AT = 500
#: Lanes of a channel that are taken up before it is known how much they hold.
AT_ONCE = 16
#: Between two readings for the same channel, in seconds.
PAUSE_S = 0.01
#: Between two cancellations of what is to end, in seconds.
CANCEL_AGAIN_S = 0.05


class Publisher(Protocol):
    """Publishes to exchanges."""

    async def publish(self, exchange: str, envelope: Envelope) -> None:
        """Publish; raises BrokerUnavailable."""
        ...


class Waiting(Protocol):
    """Where messages wait."""

    async def channels_of(self, partition: int) -> set[str]:
        """Return the channels that have messages waiting in a partition."""
        ...

    async def lanes(self, partition: int, channel_id: str, after: int, limit: int) -> list[tuple[int, str]]:
        """Return the numbers above `after` that wait in a partition for a channel, each with its lane."""
        ...


class _Channel:
    __slots__ = ("after", "writes")

    def __init__(self, after: int) -> None:
        #: Up to this number all is in memory, or was, or is in a lane's tail.
        self.after = after
        #: How many messages were written since.
        self.writes = 0


class ReadingBack:
    """Knows which channels of a partition have lanes to be taken up, and takes them up. Stop it at the end."""

    def __init__(
        self,
        broker: Publisher,
        waiting: Waiting,
        partition: int,
        room: Callable[[str], int],
        open_lane: Callable[[str], bool],
    ) -> None:
        self._broker = broker
        self._waiting = waiting
        self._partition = partition
        self._room = room
        self._open = open_lane
        self._channels: dict[str, _Channel] = {}
        self._begun = asyncio.Event()
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._stopping = False

    @property
    def begun(self) -> bool:
        """True once it is known who waits."""
        return self._begun.is_set()

    def __len__(self) -> int:
        return len(self._channels)

    def __contains__(self, channel_id: object) -> bool:
        return channel_id in self._channels

    async def begin(self) -> None:
        """Read who waits; call it when the first message came, and before it is taken in."""
        channels = await self._waiting.channels_of(self._partition)
        self._channels.update((channel_id, _Channel(0)) for channel_id in channels)
        self._begun.set()
        self._changed.set()

    def written(self, channel_id: str, number: int) -> None:
        """Note that a lane of which nothing is in memory has a message of this number."""
        channel = self._channels.get(channel_id)
        if channel is None:
            channel = self._channels[channel_id] = _Channel(number - 1)
        channel.after = min(channel.after, number - 1)
        channel.writes += 1
        self._changed.set()

    def freed(self) -> None:
        """Note that there may be room for more."""
        self._changed.set()

    def start(self, failed: Callable[[str, BaseException], None]) -> None:
        """Begin to take up lanes as long as there is room for them; `failed` is told what ends that."""
        self._task = asyncio.create_task(self._run(failed))

    async def stop(self) -> None:
        """Take up no more."""
        self._stopping = True
        self._changed.set()
        while self._task is not None and not self._task.done():
            # Again and again: a library that is waited for may catch a cancellation.
            self._task.cancel()
            await asyncio.wait({self._task}, timeout=CANCEL_AGAIN_S)

    async def _run(self, failed: Callable[[str, BaseException], None]) -> None:
        try:
            await self._wake()
            while not self._stopping:
                await self._changed.wait()
                self._changed.clear()
                for channel_id in list(self._channels):
                    await self._take_up(channel_id)
                await asyncio.sleep(PAUSE_S)
        except Exception as error:
            failed("", error)

    async def _wake(self) -> None:
        """Have a message come where some wait, as soon as this session holds the queue."""
        pause_s = WAKE_AGAIN_S
        while not self.begun and not self._stopping:
            if await self._waiting.channels_of(self._partition):
                key = inbound_key(WAKE_CHANNEL, self._partition)
                with suppress(BrokerUnavailable):
                    await self._broker.publish(INBOUND, Envelope("", WAKE, key))
            with suppress(TimeoutError):
                await asyncio.wait_for(self._begun.wait(), pause_s)
            pause_s = min(2 * pause_s, WAKE_RARELY_S)

    async def _take_up(self, channel_id: str) -> None:
        room = min(self._room(channel_id), AT_ONCE)
        if room <= 0:
            return
        # The others have their turn first next time.
        channel = self._channels[channel_id] = self._channels.pop(channel_id)
        before, writes = channel.after, channel.writes
        found = await self._waiting.lanes(self._partition, channel_id, before, LOOKED_AT)
        after = before
        for number, key in found:
            if not room:
                break
            after = number
            room -= self._open(key)
        if channel.after == before:
            channel.after = after
        if channel.writes == writes and len(found) < LOOKED_AT and (not found or after == found[-1][0]):
            # All that waits has been seen, and what is written next is told.
            del self._channels[channel_id]
        elif found:
            self._changed.set()
