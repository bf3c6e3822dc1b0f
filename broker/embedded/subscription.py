"""One subscriber's hold on a queue of the embedded broker: a cursor in the file, and the acknowledgements."""

import asyncio
from collections.abc import Sequence
from typing import Protocol

import structlog

from broker.errors import BrokerUnavailable, SubscriptionLost
from broker.port import Envelope

log = structlog.get_logger()


class Messages(Protocol):
    """Where a subscription reads and settles messages."""

    async def fetch(self, queue: str, after: int, limit: int) -> Sequence[Envelope]:
        """Read up to `limit` messages with numbers above `after`; raises BrokerUnavailable."""
        ...

    async def settle(self, tags: Sequence[int]) -> None:
        """Delete acknowledged messages; raises BrokerUnavailable."""
        ...


class EmbeddedSubscription:
    """Reads a queue from its beginning, no further ahead than the prefetch; the file is the only buffer."""

    def __init__(self, messages: Messages, queue: str, prefetch: int) -> None:
        self._messages = messages
        self._queue = queue
        self._prefetch = prefetch
        self._cursor = 0
        self._open: set[int] = set()
        self._settled: list[int] = []
        self._settling: asyncio.Task[None] | None = None
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
            if room := self._prefetch - len(self._open):
                try:
                    found = await self._messages.fetch(self._queue, self._cursor, room)
                except BrokerUnavailable as error:
                    self.lose(str(error))
                    continue
                if found:
                    self._cursor = found[-1].tag
                    self._open.update(envelope.tag for envelope in found)
                    return found
            await self._changed.wait()

    def ack(self, envelope: Envelope) -> None:
        """Acknowledge one message, soon and together with others."""
        if envelope.tag not in self._open or self._lost is not None:
            return
        if len(self._open) == self._prefetch:
            self.wake()
        self._open.discard(envelope.tag)
        self._settled.append(envelope.tag)
        if self._settling is None:
            self._settling = asyncio.create_task(self._settle())

    async def flush(self) -> None:
        """Wait until the acknowledgements so far are written."""
        if self._settling is not None:
            await asyncio.shield(self._settling)

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

    async def _settle(self) -> None:
        try:
            while self._settled:
                settled, self._settled = self._settled, []
                try:
                    await self._messages.settle(settled)
                except BrokerUnavailable as error:
                    # They come again to the next subscriber, as a lost acknowledgement may.
                    log.warning("broker.acks_lost", queue=self._queue, count=len(settled), reason=str(error))
        finally:
            self._settling = None
