"""The wire: one AMQP channel in confirm mode, and the publishes that are on their way on it."""

import asyncio
from collections.abc import Callable

from aiormq.abc import AbstractChannel, AbstractConnection

from broker.port import Envelope
from broker.rabbitmq.confirms import Confirms, Sent
from broker.rabbitmq.frames import HEAD_SIZE, publication
from broker.rabbitmq.link import blocked
from broker.rabbitmq.transport import Line

#: Publications that are written in one piece at most: the broker works on them while the next are made.
AT_ONCE = 16


class Wire:
    """Publishes on one AMQP channel, and tells who waits when a confirm is late by `timeout_s`.

    It writes to the connection's socket itself: what is published in one turn of the event loop goes in few pieces.
    """

    def __init__(
        self,
        connection: AbstractConnection,
        channel: AbstractChannel,
        line: Line,
        timeout_s: float,
        settled: Callable[[], None],
        shortcut: Callable[[str, str], tuple[str, str] | None],
    ) -> None:
        self.connection = connection
        self.channel = channel
        self.confirms = Confirms(settled)
        self._line = line
        self._timeout_s = timeout_s
        self._shortcut = shortcut
        self._loop = asyncio.get_running_loop()
        self._number = channel.number
        # 0 is no limit, and then a part may be as large as RabbitMQ's own default has it.
        self._largest = (connection.connection_tune.frame_max or 131_072) - HEAD_SIZE - 1
        self._outgoing: list[bytes] = []
        self._writing = False
        self._looking: asyncio.TimerHandle | None = None
        line.sieve.pass_to(channel.number, self.confirms)

    def send(self, exchange: str, envelope: Envelope, message_id: str, since: float | None = None) -> Sent:
        """Publish; late is what was begun `timeout_s` ago, now or at another moment. Raises ValueError."""
        key, kind = envelope.routing_key, ""
        shortcut = self._shortcut(exchange, key)
        if shortcut is not None:
            # Whoever takes it finds the whole key as its type.
            (exchange, key), kind = shortcut, key
        frames = publication(
            self._number, exchange, key, message_id, envelope.headers, envelope.body, self._largest, kind
        )
        if since is None:
            since = self._loop.time()
        self._outgoing.append(frames)
        if not self._writing:
            self._writing = True
            self._loop.call_soon(self._write_last)
        elif len(self._outgoing) >= AT_ONCE:
            self._write()
        if self._looking is None:
            # One timer for all: late confirms are rare, and a timer each is not free.
            self._looking = self._loop.call_at(since + self._timeout_s, self._look)
        return self.confirms.add(message_id, since)

    @property
    def closed(self) -> bool:
        """True where the AMQP channel is closed: a frame on it would cost the whole connection."""
        return self.confirms.ended or self.channel.is_closed

    def usable(self) -> bool:
        """Tell whether the AMQP channel stands, and no alarm keeps it from publishing."""
        # What came within this turn of the event loop may not have been read yet: once a turn is often enough.
        return not self.closed and (self._writing or not blocked(self.connection))

    def end(self, reason: str) -> None:
        """End what is on its way; what the broker says of it later is the library's."""
        self._line.sieve.leave(self._number, self.confirms)
        self._outgoing.clear()
        if self._looking is not None:
            self._looking.cancel()
            self._looking = None
        self.confirms.give_up(reason)

    def _write_last(self) -> None:
        self._writing = False
        self._write()

    def _write(self) -> None:
        frames, self._outgoing = self._outgoing, []
        if frames and not self.closed:
            # Not waiting for the socket lets the next one follow at once; the publisher bounds what piles up.
            self._line.write(b"".join(frames))

    def _look(self) -> None:
        self._looking = None
        oldest = self.confirms.time_out(self._loop.time() - self._timeout_s)
        if oldest is not None:
            self._looking = self._loop.call_at(oldest + self._timeout_s, self._look)
