"""A TCP proxy of the test's own, between a process and a server: cuts, stalls and delays."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress

from yarl import URL

#: Bytes read at a time, and pieces under way in each direction of a connection.
PIECE = 65_536
PIECES = 64


class Proxy:
    """Passes connections on to the first of its upstreams that takes them, as a load balancer does."""

    def __init__(self, *upstreams: tuple[str, int]) -> None:
        self._upstreams: Sequence[tuple[str, int]] = upstreams
        self._port = 0
        self._server: asyncio.Server | None = None
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._handlers: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()
        #: What each piece waits on its way, in seconds.
        self.delay_s = 0.0
        #: Connections there have been.
        self.connections = 0

    @classmethod
    def before(cls, *urls: str) -> "Proxy":
        """Make one that stands before the servers at these URLs."""
        parsed = [URL(url) for url in urls]
        return cls(*((url.host or "127.0.0.1", url.port or 0) for url in parsed))

    def url(self, url: str) -> str:
        """Return a URL of the server as seen through the proxy."""
        return str(URL(url).with_host("127.0.0.1").with_port(self._port))

    async def open(self) -> None:
        """Take connections; on the same port when it is opened again."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self._port, limit=PIECE)
        self._port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        """Cut everything, and refuse connections until it is opened again."""
        server, self._server = self._server, None
        if server is not None:
            server.close()
        self.cut()
        handlers = list(self._handlers)
        for handler in handlers:
            handler.cancel()
        await asyncio.gather(*handlers, return_exceptions=True)
        if server is not None:
            await server.wait_closed()

    def cut(self) -> None:
        """Cut all connections that there are; new ones are taken."""
        for writer in list(self._writers):
            writer.transport.abort()

    def stall(self) -> None:
        """Forward nothing any more, and say nothing of it: connections stand, also new ones."""
        self._flowing.clear()

    def flow(self) -> None:
        """Forward again, what waited first."""
        self._flowing.set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._handlers.add(task)
        self._writers.add(writer)
        self.connections += 1
        onward: asyncio.StreamWriter | None = None
        try:
            await self._flowing.wait()
            answers, onward = await self._connect()
            self._writers.add(onward)
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pass_on(reader, onward))
                group.create_task(self._pass_on(answers, writer))
        except* (OSError, asyncio.CancelledError, EOFError):
            pass
        finally:
            for end in (writer, onward):
                if end is not None:
                    self._writers.discard(end)
                    end.transport.abort()
            self._handlers.discard(task)

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        for host, port in self._upstreams:
            with suppress(OSError):
                return await asyncio.open_connection(host, port, limit=PIECE)
        raise ConnectionRefusedError("no upstream takes connections")

    async def _pass_on(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        pieces: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(PIECES)

        async def write() -> None:
            while True:
                at, piece = await pieces.get()
                await asyncio.sleep(max(0.0, at + self.delay_s - time.monotonic()))
                await self._flowing.wait()
                if not piece:
                    # One side is done: the other is told, and the connection ends with the first of them.
                    raise EOFError
                sink.write(piece)
                await sink.drain()

        async with asyncio.TaskGroup() as group:
            group.create_task(write())
            while piece := await source.read(PIECE):
                await pieces.put((time.monotonic(), piece))
            await pieces.put((time.monotonic(), b""))


@asynccontextmanager
async def proxied(*urls: str) -> AsyncIterator[Proxy]:
    """Open a proxy before the servers at these URLs."""
    proxy = Proxy.before(*urls)
    await proxy.open()
    try:
        yield proxy
    finally:
        await proxy.close()
