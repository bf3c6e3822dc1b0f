"""A server for the client of deliveries that says what it is told, byte for byte."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from ipaddress import ip_network

import pytest

from consumers.http.connection import Connection
from consumers.http.opening import Origin
from consumers.http.pool import Pool

LOOPBACK = (ip_network("127.0.0.0/8"),)
REQUEST = b"POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 2\r\n\r\nhi"
NO_CONTENT = b"HTTP/1.1 204 No Content\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
Talk = Callable[["Visitor"], Awaitable[None]]


class OurSide:
    """What our side of the connections has seen: the tests wait for that, rather than for a time."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.reads = self.ends = 0
        self._changed = asyncio.Event()
        received, lost = Connection.data_received, Connection.connection_lost

        def data_received(connection: Connection, data: bytes) -> None:
            received(connection, data)
            self.reads += 1
            self._changed.set()

        def connection_lost(connection: Connection, exc: Exception | None) -> None:
            lost(connection, exc)
            self.ends += 1
            self._changed.set()

        monkeypatch.setattr(Connection, "data_received", data_received)
        monkeypatch.setattr(Connection, "connection_lost", connection_lost)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait for something that it sees."""
        async with asyncio.timeout(5):
            while not condition():
                self._changed.clear()
                await self._changed.wait()


class Visitor:
    """One connection as the server sees it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, other: OurSide) -> None:
        self._reader = reader
        self._writer = writer
        self._other = other

    async def asks(self) -> None:
        """Read one request; raises IncompleteReadError where the connection ends."""
        await self._reader.readexactly(len(REQUEST))

    async def gets(self, *pieces: bytes) -> None:
        """Send pieces, each once the other side has read the one before, or has left."""
        for piece in pieces:
            reads, ends = self._other.reads, self._other.ends
            self._writer.write(piece)
            await self._writer.drain()
            if piece:
                await self._other.until(lambda: (self._other.reads, self._other.ends) != (reads, ends))  # noqa: B023

    async def leaves(self) -> None:
        """Wait until the other side closes the connection."""
        await self._reader.read()


class Server:
    """Talks to each connection in its turn, and counts them."""

    def __init__(self, our_side: OurSide, *talks: Talk) -> None:
        self._our_side = our_side
        self._talks = list(talks)
        self.visitors = 0
        self.left = 0
        self.origin = Origin("127.0.0.1", 0, tls=False)
        self._tasks: set[asyncio.Task[None]] = set()
        self.changed = asyncio.Event()

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection."""
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        talk = self._talks[min(self.visitors, len(self._talks) - 1)]
        self.visitors += 1
        try:
            self.changed.set()
            await talk(Visitor(reader, writer, self._our_side))
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            writer.close()
            self.left += 1
            self.changed.set()

    async def emptied(self) -> None:
        """Wait until nobody is connected any more."""
        async with asyncio.timeout(5):
            while self.left < self.visitors:
                self.changed.clear()
                await self.changed.wait()

    async def end(self) -> None:
        """Stop talking."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


Serving = Callable[..., AbstractAsyncContextManager[tuple[Server, Pool]]]


@asynccontextmanager
async def serve(our_side: OurSide, *talks: Talk) -> AsyncIterator[tuple[Server, Pool]]:
    server, pool = Server(our_side, *talks), Pool(LOOPBACK)
    listening = await asyncio.start_server(server.connected, "127.0.0.1", 0)
    server.origin = Origin("127.0.0.1", listening.sockets[0].getsockname()[1], tls=False)
    try:
        yield server, pool
    finally:
        await pool.close()
        listening.close()
        await server.end()


def always(*pieces: bytes) -> Talk:
    async def talk(visitor: Visitor) -> None:
        while True:
            await visitor.asks()
            await visitor.gets(*pieces)

    return talk


def once(*pieces: bytes) -> Talk:
    async def talk(visitor: Visitor) -> None:
        await visitor.asks()
        await visitor.gets(*pieces)

    return talk


def once_and_stay(*pieces: bytes) -> Talk:
    async def talk(visitor: Visitor) -> None:
        await visitor.asks()
        await visitor.gets(*pieces)
        await visitor.leaves()

    return talk
