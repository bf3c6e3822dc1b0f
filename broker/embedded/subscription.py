"""One subscriber's hold on a queue of the embedded broker: a cursor in the file, and the acknowledgements."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from broker.errors import BrokerUnavailable, SubscriptionLost
from broker.port import Envelope
from broker.room import Room, weight


@dataclass(frozen=True, slots=True)
class Fetched:
    """What was read of a queue, and the weight of the next message where it had no room; 0 otherwise."""

    envelopes: Sequence[Envelope]
    next_weight: int = 0


class Messages(Protocol):
    """Where a subscription reads and settles messages."""

    async def fetch(self, queue: str, after: int, limit: int, most: int) -> Fetched:
        """Read up to `limit` messages with numbers above `after` that weigh up to `most` together.

        Raises BrokerUnavailable.
        """
        ...

    def settle(self, tag: int) -> None:
        """Delete an acknowledged message, soon and together with others."""
        ...

    async def settled(self) -> None:
        """Wait until the acknowledged messages so far are deleted, or cannot be."""
        ...


class EmbeddedSubscription:
    """Reads a queue from its beginning, no further ahead than the prefetch.

    What is behind is read from the file. Who has read all of it is offered what is published next as it is written,
    without reading it again.
    """

    def __init__(self, messages: Messages, queue: str, prefetch: int, room: Room) -> None:
        self._messages = messages
        self._queue = queue
        self._prefetch = prefetch
        self._room = room
        self._cursor = 0
        self._open: set[int] = set()
        #: True once all that the queue holds was read or offered, until something finds no room.
        self._caught_up = False
        self._offered: list[Envelope] = []
        #: The weight of what was offered and not received yet.
        self._offered_weight = 0
        #: The weight of the first message in the file that had no room when it was read; 0 where there was none.
        self._next_weight = 0
        self._lost: str | None = None
        self._changed = asyncio.Event()

    async def receive(self) -> Sequence[Envelope]:
        """Wait for messages and take all that are there, as far as the prefetch has room.

        Raises SubscriptionLost when the broker was closed, or its file cannot be read.
        """
        while True:
            self._changed.clear()
            if self._lost is not None:
                raise SubscriptionLost(f"The subscription to {self._queue} ended: {self._lost}")
            if found := self._offered or await self._read():
                self._offered = []
                self._offered_weight = 0
                self._cursor = found[-1].tag
                for envelope in found:
                    self._open.add(envelope.tag)
                    self._room.admit(envelope.tag, weight(envelope.body))
                return found
            await self._changed.wait()

    async def _read(self) -> Sequence[Envelope]:
        room = self._prefetch - len(self._open)
        if self._caught_up or not room or not self._room.fits(self._next_weight):
            return ()
        # One is taken alone, whatever it weighs.
        most = self._room.left if self._open else max(self._room.left, self._next_weight)
        try:
            fetched = await self._messages.fetch(self._queue, self._cursor, room, most)
        except BrokerUnavailable as error:
            self.lose(str(error))
            return ()
        self._next_weight = fetched.next_weight
        # The file does one thing after the other, and tells of each in that order: what was written after this
        # was read is offered after it.
        self._caught_up = len(fetched.envelopes) < room and not fetched.next_weight
        if not fetched.envelopes and fetched.next_weight:
            self.wake()
        return fetched.envelopes

    def offer(self, number: int, envelope: Envelope) -> bool:
        """Take a message that was just written; False where it will be read from the file in its turn."""
        self.wake()
        if self._lost is not None or not self._caught_up:
            return False
        weighs = self._offered_weight + weight(envelope.body)
        if len(self._open) + len(self._offered) >= self._prefetch or weighs > self._room.left:
            self._caught_up = False
            return False
        self._offered_weight = weighs
        self._offered.append(replace(envelope, tag=number))
        return True

    def ack(self, envelope: Envelope) -> None:
        """Acknowledge one message, soon and together with others."""
        if envelope.tag not in self._open or self._lost is not None:
            return
        if len(self._open) == self._prefetch or self._next_weight:
            self.wake()
        self._open.discard(envelope.tag)
        self._room.leave(envelope.tag)
        self._messages.settle(envelope.tag)

    async def flush(self) -> None:
        """Wait until the acknowledgements so far are written."""
        await self._messages.settled()

    async def close(self) -> None:
        """Write the last acknowledgements; what is unacknowledged stays in the queue, in its place."""
        await self.flush()
        self.lose("it was closed by this process")

    def wake(self) -> None:
        """Have `receive` look again: there is something new, or room for more."""
        self._changed.set()

    def lose(self, reason: str) -> None:
        """End the hold, from the broker's side."""
        if self._lost is None:
            self._lost = reason
        self.wake()
