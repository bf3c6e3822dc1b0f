"""One AMQP connection that is kept up: connect, make ready, wait until it is lost, begin again."""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from contextlib import suppress
from enum import Enum

import aio_pika
import aio_pika.exceptions
import structlog
from aiormq.abc import AbstractConnection
from yarl import URL

from broker.errors import BrokerUnavailable, TopologyMismatch

log = structlog.get_logger()

#: Seconds between heartbeats: a peer that fell silent is noticed within three of them.
HEARTBEAT_S = 15
#: Seconds that connecting may take, from the TCP handshake to the open virtual host.
CONNECT_TIMEOUT_S = 5.0
#: Seconds before the second try; doubled with every further one up to the longest.
FIRST_BACKOFF_S = 0.2
LONGEST_BACKOFF_S = 5.0
#: Seconds that saying goodbye may take: a node under an alarm does not read what we send.
CLOSE_TIMEOUT_S = 3.0

#: What the client library raises when the other side is away, refuses, or answers nonsense. RuntimeError and
#: ValueError are how it tells of a connection that closed under a call.
TROUBLE = (aio_pika.exceptions.AMQPError, OSError, TimeoutError, RuntimeError, ValueError)

Prepare = Callable[[AbstractConnection], Awaitable[None]]


class State(Enum):
    """Where a link stands."""

    IDLE = "idle"
    CONNECTING = "connecting"
    OPEN = "open"
    CLOSED = "closed"


class Link:
    """Keeps one connection up until closed; `prepare` runs on each new one before anyone else gets it."""

    def __init__(self, url: str, name: str, prepare: Prepare) -> None:
        # Messages of the library about an outage come with tracebacks, several for one cut. We tell it ourselves.
        for library in ("aio_pika", "aiormq"):
            logging.getLogger(library).setLevel(logging.CRITICAL)
        self._url = URL(url).update_query(heartbeat=HEARTBEAT_S, name=f"postbote-{name}")
        self._shown = str(URL(url).with_password(None).with_query(None))
        self._name = name
        self._prepare = prepare
        self._connection: AbstractConnection | None = None
        self._mismatch: TopologyMismatch | None = None
        self._reason = "it has not been started"
        self._changed = asyncio.Event()
        self._dropped: asyncio.Event = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self.state = State.IDLE
        #: Counts the connections there have been: what belongs to an earlier one is void.
        self.generation = 0

    def start(self) -> None:
        """Begin to connect."""
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name=f"link-{self._name}")

    async def ready(self) -> AbstractConnection:
        """Wait for the connection, as long as the caller's own timeout allows.

        Raises TopologyMismatch while the broker's queues do not fit, BrokerUnavailable after close.
        """
        while True:
            if self._connection is not None:
                return self._connection
            if self._mismatch is not None:
                raise TopologyMismatch(str(self._mismatch))
            if self.state is State.CLOSED:
                raise BrokerUnavailable("The connection to the broker was closed by this process.")
            await self._changed.wait()

    def trouble(self) -> str:
        """Say why there is no connection, for an error message."""
        return f"RabbitMQ at {self._shown} does not answer: {self._reason}"

    def drop(self, connection: AbstractConnection, reason: str) -> None:
        """Give up a connection that does not answer any more, and make a new one."""
        if connection is self._connection:
            self._reason = reason
            self._dropped.set()

    async def close(self) -> None:
        """Close the connection for good; does nothing the second time."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait({task})
        self._turn(State.CLOSED)

    def _turn(self, state: State) -> None:
        self.state = state
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    async def _run(self) -> None:
        failures = 0
        while True:
            self._turn(State.CONNECTING)
            try:
                transport = await self._connect()
            except TopologyMismatch as mismatch:
                if self._mismatch is None:
                    log.error("broker.mismatch", link=self._name, reason=str(mismatch))
                self._mismatch = mismatch
                self._turn(State.CONNECTING)
            except TROUBLE as error:
                self._mismatch = None
                self._reason = describe(error)
                if failures == 0:
                    log.warning("broker.unreachable", link=self._name, url=self._shown, reason=self._reason)
            else:
                failures = 0
                await self._stay(transport)
                continue
            failures += 1
            longest = min(LONGEST_BACKOFF_S, FIRST_BACKOFF_S * 2 ** min(failures - 1, 10))
            await asyncio.sleep(longest * random.uniform(0.5, 1.0))  # noqa: S311 - spreads reconnects, no secret

    async def _connect(self) -> aio_pika.abc.AbstractConnection:
        connection = await aio_pika.connect(self._url, timeout=CONNECT_TIMEOUT_S)
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S * 4):
                await self._prepare(underlying(connection))
        except BaseException:
            await farewell(connection)
            raise
        return connection

    async def _stay(self, connection: aio_pika.abc.AbstractConnection) -> None:
        raw = underlying(connection)
        closing = raw.closing
        self._dropped = asyncio.Event()
        dropped = asyncio.create_task(self._dropped.wait())
        self.generation += 1
        self._mismatch = None
        self._connection = raw
        self._turn(State.OPEN)
        log.info("broker.connected", link=self._name, url=self._shown, generation=self.generation)
        try:
            await asyncio.wait({closing, dropped}, return_when=asyncio.FIRST_COMPLETED)
            if closing.done():
                self._reason = describe(None if closing.cancelled() else closing.exception())
            log.warning("broker.lost", link=self._name, url=self._shown, reason=self._reason)
        finally:
            self._connection = None
            self._turn(State.CONNECTING)
            dropped.cancel()
            await farewell(connection)


def underlying(connection: aio_pika.abc.AbstractConnection) -> AbstractConnection:
    """Give the AMQP connection beneath aio-pika's, whose calls cost less and which tells of server cancels."""
    if connection.transport is None:
        raise aio_pika.exceptions.AMQPConnectionError("the connection is closed")
    return connection.transport.connection


async def farewell(connection: aio_pika.abc.AbstractConnection) -> None:
    """Close a connection in bounded time; errors no longer matter."""
    closing = asyncio.ensure_future(connection.close())
    try:
        await asyncio.wait({closing}, timeout=CLOSE_TIMEOUT_S)
    finally:
        if not closing.done():
            closing.cancel()
            closing.add_done_callback(lambda done: done.cancelled() or done.exception())
        elif not closing.cancelled():
            with suppress(Exception):
                closing.result()


def describe(error: BaseException | None) -> str:
    """Put an error of the client library in words."""
    if error is None or isinstance(error, asyncio.CancelledError):
        return "the connection was closed"
    if isinstance(error, TimeoutError):
        return "no answer in time"
    return str(error) or repr(error)
