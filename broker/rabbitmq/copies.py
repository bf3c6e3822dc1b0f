"""Copies of responses for others: published to `postbote.responses`, on a connection of their own, not waited for.

A confirm covers every queue that a message reaches, and a full queue of somebody else's (`x-overflow:
reject-publish`) refuses it for all; a slow one holds up the connection (flow control,
https://www.rabbitmq.com/docs/flow-control). So deliveries and bots depend on no copy. Confirms are read all the same:
what a lost connection left unconfirmed is published again, so that a copy may come twice and is rarely lost.
"""

import asyncio
from collections import OrderedDict, deque
from contextlib import suppress
from struct import Struct

import structlog
from aiormq.abc import AbstractChannel, AbstractConnection

from broker.errors import BrokerUnavailable, TopologyMismatch
from broker.port import Envelope
from broker.rabbitmq.calls import within
from broker.rabbitmq.frames import ACK, BODY, CLOSE, HEAD_SIZE, HEADER, METHOD, NACK, RETURN, TAG, publication
from broker.rabbitmq.link import TROUBLE, Link, close_channel, describe
from broker.rabbitmq.transport import Line
from broker.topology import RESPONSES, copied_key, copy_key

log = structlog.get_logger()

#: Seconds for which a routing key that no queue is bound for is not copied.
UNREAD_S = 1.0
#: Such keys that are remembered.
MOST_UNREAD = 10_000
#: Bytes of bodies that wait or are unconfirmed; of more, the oldest are given up. And the part of them that waits for
#: the socket.
MOST_BYTES = 8 * 1024 * 1024
MOST_UNSENT = 1024 * 1024
#: Seconds between two tries to go on, where the socket takes no more or the broker refuses the AMQP channel.
PAUSE_S = 0.1
PAUSE_AFTER_REFUSAL_S = 5.0
#: Seconds that opening an AMQP channel, and the last confirms, may take.
OPEN_S = 5.0
LAST_CONFIRMS_S = 0.5
#: Seconds between two lines of the log about copies that were given up.
TELL_S = 10.0

_SIZE = Struct(">Q")


class Copies:
    """Publishes copies in the order in which they are given; reads its AMQP channel's frames for the sieve."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None
        self._closed = False
        self._waiting: deque[Envelope] = deque()
        #: By the number that the broker confirms them by, in order.
        self._unconfirmed: OrderedDict[int, Envelope] = OrderedDict()
        self._bytes = 0
        self._number = 0
        self._unread: dict[str, float] = {}
        #: The AMQP channel while it is open, the largest part of a body, and the way to the broker.
        self._open: tuple[AbstractChannel, int, Line] | None = None
        self._writing: asyncio.Handle | None = None
        #: What is to come of a returned message.
        self._returning: int | None = None
        self._left = 0
        #: Set when nothing waits or is unconfirmed any more.
        self._idle = asyncio.Event()
        self._given_up = 0
        self._told_at = 0.0

    def copy(self, envelope: Envelope) -> None:
        """Publish a copy soon, where somebody has bound a queue for its routing key."""
        loop = self._loop = self._loop or asyncio.get_running_loop()
        if self._closed or self._unread.get(envelope.routing_key, 0.0) > loop.time():
            return
        if self._task is None:
            self._link.start()
            self._task = asyncio.create_task(self._run(), name="copies")
        self._bytes += len(envelope.body)
        self._waiting.append(envelope)
        while self._bytes > MOST_BYTES:
            self._give_up_oldest()
        self._write_soon()

    async def close(self) -> None:
        """Wait a moment for the last confirms, and close the connection."""
        self._closed = True
        if self._task is not None:
            if self._open is not None and (self._waiting or self._unconfirmed):
                self._idle.clear()
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._idle.wait(), LAST_CONFIRMS_S)
            self._task.cancel()
            await asyncio.wait({self._task})
        await self._link.close()

    def takes(self, kind: int, data: bytes, start: int, end: int) -> bool:
        """Read a frame's payload, data[start:end]; False where it is for the library."""
        if self._returning is not None and kind == self._returning:
            self._left = (
                _SIZE.unpack_from(data, start + 4)[0] if kind == HEADER else self._left - (end - start)
            )
            self._returning = BODY if self._left > 0 else None
            return True
        if kind != METHOD:
            return False
        method = data[start : start + 4]
        if method in (ACK, NACK):
            number, multiple = TAG.unpack_from(data, start + 4)
            self._confirm(number, multiple & 1, refused=method == NACK)
        elif method == RETURN:
            self._returning = HEADER
            # A code, then why, the exchange and the routing key, each with its length before it.
            at = start + 6
            at += 1 + data[at]
            at += 1 + data[at]
            self._not_read(data[at + 1 : at + 1 + data[at]].decode("utf-8", "replace"))
        else:
            if method == CLOSE:
                self._open = None
            return False
        return True

    async def _run(self) -> None:
        while True:
            try:
                connection = await self._link.ready()
                await connection.ready()
                line = self._link.line
                channel = await within(OPEN_S, connection.channel(publisher_confirms=True), close_channel)
            except (TopologyMismatch, BrokerUnavailable, *TROUBLE):
                await asyncio.sleep(PAUSE_S)
                continue
            await self._publish_on(connection, channel, line)

    async def _publish_on(self, connection: AbstractConnection, channel: AbstractChannel, line: Line) -> None:
        largest = (connection.connection_tune.frame_max or 131_072) - HEAD_SIZE - 1
        self._number, self._returning = 0, None
        self._waiting.extendleft(reversed(self._unconfirmed.values()))
        self._unconfirmed.clear()
        line.sieve.pass_to(channel.number, self)
        self._open = (channel, largest, line)
        closing = channel.closing
        try:
            self._write_soon()
            await asyncio.wait({closing})
        finally:
            self._open = None
            self._idle.set()
            line.sieve.leave(channel.number, self)
        if not connection.is_closed:
            # The exchange is gone, or this user may not publish to it: the same would happen again.
            reason = describe(None if closing.cancelled() else closing.exception())
            log.warning("copies.refused", exchange=RESPONSES, reason=reason)
            while self._waiting or self._unconfirmed:
                self._give_up_oldest()
            await asyncio.sleep(PAUSE_AFTER_REFUSAL_S)

    def _write_soon(self, pause_s: float = 0.0) -> None:
        if self._writing is None and self._open is not None and self._waiting and self._loop is not None:
            # What else is copied in this turn of the event loop goes with it.
            again = (
                self._loop.call_later(pause_s, self._write) if pause_s else self._loop.call_soon(self._write)
            )
            self._writing = again

    def _write(self) -> None:
        self._writing = None
        if self._open is None or self._open[0].is_closed:
            return
        channel, largest, line = self._open
        pieces: list[bytes] = []
        unsent = line.unsent()
        while self._waiting and unsent < MOST_UNSENT:
            envelope = self._waiting.popleft()
            key = copy_key(envelope.routing_key)
            try:
                piece = publication(
                    channel.number, RESPONSES, key, envelope.id, envelope.headers, envelope.body, largest
                )
            except ValueError:
                self._bytes -= len(envelope.body)
                continue
            pieces.append(piece)
            unsent += len(piece)
            self._number += 1
            self._unconfirmed[self._number] = envelope
        line.write(b"".join(pieces))
        self._write_soon(PAUSE_S)

    def _confirm(self, number: int, multiple: int, *, refused: bool) -> None:
        while multiple and self._unconfirmed and (first := next(iter(self._unconfirmed))) < number:
            self._settle(first, refused)
        self._settle(number, refused)
        if refused:
            self._tell("a queue that is bound to it is full and refuses")
        if not self._unconfirmed and not self._waiting:
            self._idle.set()

    def _settle(self, number: int, refused: bool) -> None:
        envelope = self._unconfirmed.pop(number, None)
        if envelope is not None:
            self._bytes -= len(envelope.body)
            self._given_up += refused

    def _not_read(self, key: str) -> None:
        if self._loop is not None:
            if len(self._unread) >= MOST_UNREAD:
                self._unread.clear()
            self._unread[copied_key(key)] = self._loop.time() + UNREAD_S

    def _give_up_oldest(self) -> None:
        # What is unconfirmed is on its way; given up is only that it is published again after a lost connection.
        if self._unconfirmed:
            _, envelope = self._unconfirmed.popitem(last=False)
        else:
            envelope = self._waiting.popleft()
            self._given_up += 1
            self._tell("the broker takes them more slowly than they are made, or not at all")
        self._bytes -= len(envelope.body)

    def _tell(self, reason: str) -> None:
        if self._loop is not None and self._loop.time() - self._told_at > TELL_S:
            self._told_at = self._loop.time()
            log.warning("copies.given_up", exchange=RESPONSES, count=self._given_up, reason=reason)
