"""Receivers of webhooks: real HTTP servers that keep what comes in, in the order in which it comes.

How one behaves is a function that may be exchanged while it runs; see behaviours.py. A byte of HTTP/1.1 is
spoken by hand here, for the sake of those who break it, and so that thousands of deliveries a second cost little.
"""

import asyncio
import json
import socket
import ssl
import struct
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Container, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from broker.signature import verify

#: What a receiver does with a delivery: answers it, or something worse.
Behaviour = Callable[["Delivery", "Exchange"], Awaitable[None] | None]

#: Makes closing a socket send a reset.
RESET = struct.pack("ii", 1, 0)
LARGEST = 2 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Delivery:
    """One request as it came in."""

    id: str
    user: str
    counter: int
    text: str
    body: bytes
    headers: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Arrival:
    """A delivery that was read in full; `accepted` where it was answered 2xx. Seconds of both clocks."""

    user: str
    counter: int
    at: float
    wall: float
    accepted: bool


def good(delivery: Delivery, exchange: "Exchange") -> None:
    """Accept it."""
    exchange.answer(200)


class Exchange:
    """One request and the connection on which it came, for a behaviour to do with as it likes."""

    def __init__(self, receiver: "Receiver", delivery: Delivery, transport: asyncio.Transport) -> None:
        self._receiver = receiver
        self._delivery = delivery
        self._transport = transport
        self._noted = False

    def answer(self, status: int, body: bytes = b"", headers: Mapping[str, str] | None = None) -> None:
        """Answer in full, and keep the connection."""
        more = "".join(f"{name}: {value}\r\n" for name, value in (headers or {}).items())
        head = f"HTTP/1.1 {status} Whatever\r\nContent-Length: {len(body)}\r\n{more}\r\n"
        self.note(accepted=200 <= status < 300)
        self.write(head.encode() + body)

    def note(self, *, accepted: bool) -> None:
        """Keep that it arrived; a behaviour that answers by hand says so before it does."""
        if not self._noted:
            self._noted = True
            self._receiver.keep(self._delivery, accepted=accepted)

    def write(self, data: bytes) -> None:
        """Write bytes of whatever sense."""
        if not self._transport.is_closing():
            self._transport.write(data)

    def close(self) -> None:
        """Close the connection in an orderly way."""
        self._transport.close()

    def reset(self) -> None:
        """Close the connection with a reset."""
        opened: socket.socket = self._transport.get_extra_info("socket")
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        self._transport.abort()

    @property
    def gone(self) -> bool:
        """True where the other side closed the connection."""
        return self._transport.is_closing()


class Receiver:
    """Listens on one port, on behalf of one webhook."""

    def __init__(self, name: str, tls: ssl.SSLContext | None = None) -> None:
        self.name = name
        self.behaviour: Behaviour = good
        #: The webhook's, once it is registered.
        self.secret = ""
        self.arrivals: list[Arrival] = []
        #: What came and was not signed as it has to be.
        self.unsigned: list[str] = []
        #: Requests by webhook-id, and how many of them at once for one user at the most.
        self.requests = 0
        self.most_at_once = 0
        self._tls = tls
        self._accepted: set[tuple[str, int]] = set()
        self._open: Counter[str] = Counter()
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Transport] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._port = 0

    @property
    def url(self) -> str:
        """Where it listens, or did."""
        return f"{'http' if self._tls is None else 'https'}://127.0.0.1:{self._port}/hook"

    @property
    def distinct(self) -> int:
        """How many different messages were accepted."""
        return len(self._accepted)

    def distinct_of(self, users: Container[str]) -> int:
        """How many different messages of some users were accepted."""
        return sum(1 for user, _ in self._accepted if user in users)

    def repeats(self) -> list[tuple[Arrival, Arrival]]:
        """Return what was accepted more than once: the first arrival with each later one."""
        first: dict[tuple[str, int], Arrival] = {}
        found = []
        for arrival in self.arrivals:
            if arrival.accepted:
                before = first.setdefault((arrival.user, arrival.counter), arrival)
                if before is not arrival:
                    found.append((before, arrival))
        return found

    def forget(self, user: str) -> None:
        """Leave a user out, whom the load does not know."""
        self.arrivals = [arrival for arrival in self.arrivals if arrival.user != user]
        self._accepted = {key for key in self._accepted if key[0] != user}

    async def open(self) -> None:
        """Begin to listen; on the same port when it is opened again."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: _Connection(self), "127.0.0.1", self._port, ssl=self._tls, reuse_address=True, backlog=512
        )
        self._port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        """Stop listening, and cut all connections: who connects now is refused."""
        server, self._server = self._server, None
        if server is not None:
            server.close()
        for transport in list(self._connections):
            transport.abort()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if server is not None:
            await server.wait_closed()

    def use(self, tls: ssl.SSLContext) -> None:
        """Show another certificate from the next opening on."""
        self._tls = tls

    def take(self, headers: Mapping[str, str], body: bytes, transport: asyncio.Transport) -> None:
        """Take one request in."""
        self.requests += 1
        why = verify([self.secret], headers, body, now=time.time())
        if why is not None:
            self.unsigned.append(why)
        said: dict[str, Any] = json.loads(body)
        text = str(said["message"].get("text", ""))
        delivery = Delivery(
            headers.get("webhook-id", ""), said["senderId"], said["messageCounter"], text, body, headers
        )
        exchange = Exchange(self, delivery, transport)
        doing = self.behaviour(delivery, exchange)
        if doing is not None:
            self._watch(delivery.user, doing)

    def keep(self, delivery: Delivery, *, accepted: bool) -> None:
        """Keep that a delivery arrived."""
        arrival = Arrival(delivery.user, delivery.counter, time.monotonic(), time.time(), accepted)
        self.arrivals.append(arrival)
        if accepted:
            self._accepted.add((delivery.user, delivery.counter))

    def _watch(self, user: str, doing: Awaitable[None]) -> None:
        async def run() -> None:
            await doing

        task = asyncio.create_task(run())
        self._tasks.add(task)
        self._open[user] += 1
        self.most_at_once = max(self.most_at_once, self._open[user])

        def done(ended: asyncio.Task[None]) -> None:
            self._tasks.discard(ended)
            self._open[user] -= 1

        task.add_done_callback(done)

    def connected(self, transport: asyncio.Transport) -> None:
        """Keep a connection, to cut it at the end."""
        self._connections.add(transport)

    def lost(self, transport: asyncio.Transport) -> None:
        """Forget a connection."""
        self._connections.discard(transport)


class _Connection(asyncio.Protocol):
    """Reads requests with a Content-Length, one after the other."""

    def __init__(self, receiver: Receiver) -> None:
        self._receiver = receiver
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._receiver.connected(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._receiver.lost(self._transport)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while (end := self._buffer.find(b"\r\n\r\n")) >= 0:
            _, *lines = self._buffer[:end].decode("latin-1").split("\r\n")
            pairs = (line.partition(":") for line in lines)
            headers = {name.strip().lower(): value.strip() for name, _, value in pairs}
            length = int(headers.get("content-length", "0"))
            if len(self._buffer) < end + 4 + length:
                break
            body = self._buffer[end + 4 : end + 4 + length]
            self._buffer = self._buffer[end + 4 + length :]
            self._receiver.take(headers, body, self._transport)
        if len(self._buffer) > LARGEST:
            self._transport.abort()


@asynccontextmanager
async def opened(*receivers: Receiver) -> AsyncIterator[None]:
    """Have receivers listen, and close them at the end."""
    try:
        for receiver in receivers:
            await receiver.open()
        yield
    finally:
        for receiver in receivers:
            await receiver.close()
