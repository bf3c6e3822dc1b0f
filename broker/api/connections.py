"""The connections of the API's server: at most so many, and none that keeps it waiting for longer than it may.

Where there are as many as there may be, the one that has waited for longest makes room for a new one. So a crowd
of clients that send nothing keeps out nobody, and leaves the descriptors that the rest of the process needs.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web

from broker.api.connection import Connection, Limits


class Connections:
    """The connections of one server; called, it makes one more for the event loop."""

    def __init__(self, server: web.Server, limits: Limits) -> None:
        self._server = server
        self.limits = limits
        self._loop = asyncio.get_running_loop()
        self._all: set[Connection] = set()
        #: Those that keep the server waiting, each set in the order in which they began to.
        self._new: dict[Connection, None] = {}
        self._idle: dict[Connection, None] = {}

    def __call__(self) -> Connection:
        """Make the protocol of a connection."""
        return Connection(self, self._server, self._loop)

    def admit(self, connection: Connection) -> bool:
        """Count a connection in, where there is room or another that waits makes some."""
        if len(self._all) >= self.limits.most:
            oldest = next(iter(self._new or self._idle), None)
            if oldest is None:
                return False
            self.forget(oldest)
            oldest.drop()
        self._all.add(connection)
        self._new[connection] = None
        return True

    def begun(self, connection: Connection) -> None:
        """Note that a request of a connection is in hand: it keeps nobody waiting."""
        self._new.pop(connection, None)
        self._idle.pop(connection, None)

    def ended(self, connection: Connection) -> None:
        """Note that a connection's request is answered."""
        if connection in self._all:
            self._idle[connection] = None

    def forget(self, connection: Connection) -> None:
        """Count a connection out."""
        self._all.discard(connection)
        self.begun(connection)

    async def look(self) -> None:
        """Close the connections whose time is over, again and again; ends by cancellation."""
        look_s = self.limits.look_s
        while True:
            expected = self._loop.time() + look_s
            await asyncio.sleep(look_s)
            now = self._loop.time()
            if now - expected > look_s:
                # This process stood still: what came meanwhile is read first.
                continue
            for connection in [*self._new, *self._idle]:
                if connection.until <= now:
                    connection.expire(now)


@asynccontextmanager
async def listening(
    app: web.Application, host: str, port: int, limits: Limits, shutdown_s: float
) -> AsyncIterator[tuple[str, int]]:
    """Serve an application; yields where. Leaving lets requests under way end, within `shutdown_s` seconds.

    Raises OSError where it cannot listen there.
    """
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=shutdown_s)
    await runner.setup()
    try:
        assert runner.server is not None
        connections = Connections(runner.server, limits)
        server = await asyncio.get_running_loop().create_server(connections, host, port, backlog=1024)
        looking = asyncio.create_task(connections.look())
        try:
            yield server.sockets[0].getsockname()[:2]
        finally:
            server.close()
            looking.cancel()
            await asyncio.gather(looking, return_exceptions=True)
    finally:
        await runner.cleanup()
