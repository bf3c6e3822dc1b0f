"""The transport of a connection to RabbitMQ: TCP or TLS as the client library opens it, with a sieve in between."""

import asyncio
import struct
from collections.abc import Callable
from typing import Any

import aiormq
from aiormq.exceptions import AMQPConnectionError
from yarl import URL

from broker.rabbitmq.frames import HEARTBEAT
from broker.rabbitmq.sieve import BEAT_S, Sieve

#: How long an acknowledgement waits for others of its connection to go with it, in seconds. Each writing costs as
#: much as half a delivery, here and at the broker.
LINGER_S = 0.04
#: Seconds that opening a socket may take, TLS included.
OPEN_TIMEOUT_S = 5.0


class Line:
    """One connection's way to the broker and back, beside the library: what it receives is sifted first."""

    def __init__(self, sieve: Sieve) -> None:
        self.sieve = sieve
        self.transport: asyncio.Transport | None = None
        #: True once the connection is given up: a transport that is opened later is closed at once.
        self.ended = False
        self._library: asyncio.StreamReader | None = None
        self._pausing: asyncio.TimerHandle | None = None
        self._asked: list[Callable[[], bytes]] = []

    def opened(self, transport: asyncio.Transport, library: asyncio.StreamReader) -> None:
        """Take over a connection that was opened, and what the library reads of it."""
        self.transport = transport
        self._library = library

    def pause(self) -> None:
        """Leave unread what the broker sends. It ends a connection that is not read for half a minute."""
        if self.transport is not None and self._pausing is None:
            self.transport.pause_reading()
            self._pausing = asyncio.get_running_loop().call_later(BEAT_S, self._beat)

    def resume(self) -> None:
        """Read on."""
        if self.transport is not None and self._pausing is not None:
            self._pausing.cancel()
            self._pausing = None
            if not self.transport.is_closing():
                self.transport.resume_reading()

    def _beat(self) -> None:
        # The library takes a broker of which it reads nothing for one that is gone.
        if self.transport is None or self.transport.is_closing() or self._library is None:
            return
        self._library.feed_data(HEARTBEAT)
        self._pausing = asyncio.get_running_loop().call_later(BEAT_S, self._beat)

    def write(self, frames: bytes) -> None:
        """Write whole frames, between those of the library; into nothing where the connection is closed."""
        if frames and self.transport is not None and not self.transport.is_closing():
            self.transport.write(frames)

    def write_soon(self, ask: Callable[[], bytes]) -> None:
        """Ask for frames within `LINGER_S`, all who want it at once, and write them in one piece."""
        if not self._asked:
            asyncio.get_running_loop().call_later(LINGER_S, self._write_asked)
        self._asked.append(ask)

    def unsent(self) -> int:
        """Count the bytes that wait for the socket."""
        return 0 if self.transport is None else self.transport.get_write_buffer_size()

    def end(self) -> None:
        """Close the connection's socket at once, also one that is still being opened."""
        self.ended = True
        if self.transport is not None:
            self.transport.abort()

    def _write_asked(self) -> None:
        asked, self._asked = self._asked, []
        self.write(b"".join([ask() for ask in asked]))


class SiftedTransport(aiormq.TransportFactory):
    """Opens one connection, for one use; raises AMQPConnectionError."""

    def __init__(self, line: Line) -> None:
        self._line = line

    async def create(self, url: URL, **kwargs: Any) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Connect, and return what the library reads from and writes to."""
        context = kwargs.pop("ssl_context_provider", None)
        tls = await context.get_context() if url.scheme == "amqps" and context is not None else None
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader(loop=loop)
        protocol = _Sifted(self._line.sieve, reader, loop)
        try:
            # The library is not told to stop when nobody waits for the connection any more.
            async with asyncio.timeout(OPEN_TIMEOUT_S):
                transport, _ = await loop.create_connection(
                    lambda: protocol, url.host or "localhost", url.port or 5672, ssl=tls, **kwargs
                )
        except OSError as error:
            raise AMQPConnectionError(*error.args) from error
        self._line.opened(transport, reader)
        if self._line.ended:
            transport.abort()
            raise AMQPConnectionError("it was given up while it was being opened")
        return reader, asyncio.StreamWriter(transport, protocol, reader, loop)


class _Sifted(asyncio.StreamReaderProtocol):
    def __init__(self, sieve: Sieve, reader: asyncio.StreamReader, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(reader, loop=loop)
        self._sieve = sieve
        # Kept here: the base class holds its reader weakly.
        self._library = reader

    def data_received(self, data: bytes) -> None:
        """Sift what came; a frame that cannot be read ends the connection."""
        try:
            rest = self._sieve.feed(data)
        except (struct.error, IndexError, ValueError) as error:
            self._library.set_exception(ConnectionError(f"a frame cannot be read: {error}"))
            return
        if rest:
            super().data_received(rest)
