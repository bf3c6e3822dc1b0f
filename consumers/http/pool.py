"""The pool: connections are kept open between exchanges, by origin.

How many there are at a time is bounded by whoever asks; what is idle goes after a while, before its server closes it.
A server may still close one at the moment at which a request goes out. That is nobody's fault, and says nothing about
the request: it is sent once more, over a new connection.
"""

import asyncio
from collections.abc import Sequence

from broker.settings import Network
from consumers.http.connection import Answer, BrokenAnswer, Connection
from consumers.http.lookups import Address
from consumers.http.opening import Opener, Origin

#: How often to close what was idle for too long, in seconds.
SWEEP_S = 1.0
#: What some servers say as they close an idle connection, perhaps just when a request comes (RFC 9110, 15.5.9).
_REQUEST_TIMEOUT = 408


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
        reused = connection is not None
        # The wait for a name is bounded by itself, and none of the endpoint's time.
        resolved = () if reused else await self._opener.resolve(origin)
        until = self._loop.time() + timeout_s
        while True:
            if connection is None:
                connection = await self._open(origin, resolved, until)
            waiter = connection.exchange(request)
            deadline = self._loop.call_at(until, connection.expire, waiter)
            try:
                answer = await waiter
            except (BrokenAnswer, OSError) as failure:
                if not reused or not connection.unanswered or isinstance(failure, TimeoutError):
                    raise
            except BaseException:
                connection.give_up(waiter)
                raise
            else:
                if not reused or answer.status != _REQUEST_TIMEOUT or connection.open:
                    return answer
            finally:
                deadline.cancel()
            connection, reused = None, False
            since = self._loop.time()
            resolved = await self._opener.resolve(origin)
            until += self._loop.time() - since

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

    async def _open(self, origin: Origin, resolved: Sequence[Address], until: float) -> Connection:
        async with asyncio.timeout_at(until):
            connection = await self._opener.open(origin, resolved, lambda: self._made(origin))
        if connection.open:
            self._all.add(connection)
        return connection

    def _take_idle(self, origin: Origin) -> Connection | None:
        connections = self._idle.get(origin)
        while connections:
            connection = connections.pop()
            # The server may have closed it a moment ago, and the sweep may be late.
            if connection.open:
                if connection.idle_until > self._loop.time():
                    return connection
                connection.abort()
        return None

    def _made(self, origin: Origin) -> Connection:
        def idle(connection: Connection) -> None:
            connection.idle_until = self._loop.time() + (connection.idle_s or 0.0)
            self._idle.setdefault(origin, []).append(connection)
            if self._sweeping is None:
                self._sweeping = self._loop.call_later(SWEEP_S, self._sweep)

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
        now = self._loop.time()
        for origin, connections in list(self._idle.items()):
            # What is aborted leaves the list by itself, later.
            for connection in list(connections):
                if connection.idle_until <= now:
                    connection.abort()
            if not connections:
                del self._idle[origin]
        if self._idle:
            self._sweeping = self._loop.call_later(SWEEP_S, self._sweep)
