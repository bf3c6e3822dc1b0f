"""The pool: connections are kept open between exchanges, by origin.

How many there are at a time is bounded by whoever asks; what is idle goes after a while.
"""

import asyncio
import time
from collections.abc import Sequence

from broker.settings import Network
from consumers.http.connection import Answer, Connection
from consumers.http.opening import Opener, Origin

#: How long an idle connection is kept, in seconds. Many servers close theirs after little more.
IDLE_S = 15.0


class Pool:
    """Makes exchanges over connections that it keeps. One object for a process; close it at the end."""

    def __init__(self, allowed: Sequence[Network]) -> None:
        self._loop = asyncio.get_running_loop()
        self._opener = Opener(allowed)
        #: Those that nobody uses, the one that was used last at the end.
        self._idle: dict[Origin, list[Connection]] = {}
        self._all: set[Connection] = set()
        self._sweeping: asyncio.TimerHandle | None = None
        self._emptied = asyncio.Event()

    async def exchange(self, origin: Origin, request: bytes, timeout_s: float) -> Answer:
        """Send a request, and return its answer.

        Raises NameNotResolved, TimeoutError without an answer in time, BrokenAnswer, ssl.SSLError or another OSError.
        """
        connection = self._take_idle(origin)
        # The wait for a name is bounded by itself, and none of the endpoint's time.
        resolved = await self._opener.resolve(origin) if connection is None else ()
        until = self._loop.time() + timeout_s
        if connection is None:
            async with asyncio.timeout_at(until):
                connection = await self._opener.open(origin, resolved, lambda: self._made(origin))
            if connection.open:
                self._all.add(connection)
        waiter = connection.exchange(request)
        deadline = self._loop.call_at(until, connection.expire, waiter)
        try:
            return await waiter
        except BaseException:
            connection.give_up(waiter)
            raise
        finally:
            deadline.cancel()

    async def close(self) -> None:
        """Close all connections."""
        if self._sweeping is not None:
            self._sweeping.cancel()
        for connection in self._all:
            connection.abort()
        self._opener.close()
        while self._all:
            self._emptied.clear()
            await self._emptied.wait()

    def _take_idle(self, origin: Origin) -> Connection | None:
        connections = self._idle.get(origin)
        while connections:
            connection = connections.pop()
            # The server may have closed it a moment ago.
            if connection.open:
                return connection
        return None

    def _made(self, origin: Origin) -> Connection:
        def idle(connection: Connection) -> None:
            connection.idle_since = time.monotonic()
            self._idle.setdefault(origin, []).append(connection)
            if self._sweeping is None:
                self._sweeping = self._loop.call_later(IDLE_S, self._sweep)

        def lost(connection: Connection) -> None:
            self._all.discard(connection)
            idle = self._idle.get(origin)
            if idle is not None and connection in idle:
                idle.remove(connection)
            if not self._all:
                self._emptied.set()

        return Connection(idle, lost)

    def _sweep(self) -> None:
        self._sweeping = None
        old = time.monotonic() - IDLE_S
        for origin, connections in list(self._idle.items()):
            while connections and connections[0].idle_since <= old:
                connections.pop(0).abort()
            if not connections:
                del self._idle[origin]
        oldest = min((connections[0].idle_since for connections in self._idle.values()), default=None)
        if oldest is not None:
            wait_s = max(0.1, oldest - old)
            self._sweeping = self._loop.call_later(wait_s, self._sweep)
