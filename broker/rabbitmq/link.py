"""One AMQP connection that is kept up: connect, make ready, wait until it is lost, begin again.

A plain connection of aio-pika and our own loop: topology, AMQP channels and consumers have to be built anew
together. What goes over it uses aiormq, aio-pika's lower half: its AMQP channels tell when the broker cancels a
consumer, and it costs no object and no task that we do not need.
"""

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from enum import Enum

import aio_pika
import structlog
from aiormq.abc import AbstractChannel, AbstractConnection
from aiormq.exceptions import AMQPError, ConnectionClosed, ProbableAuthenticationError
from pamqp.common import FieldTable
from yarl import URL

from broker.errors import BrokerRefused, BrokerUnavailable, TopologyMismatch
from broker.rabbitmq.calls import within
from broker.rabbitmq.refusals import ClosingWords, why_refused
from broker.rabbitmq.sieve import Sieve
from broker.rabbitmq.transport import Line, SiftedTransport
from broker.server_urls import shown

log = structlog.get_logger()

#: Seconds between heartbeats: a peer that fell silent is noticed within three of them, on either side.
HEARTBEAT_S = 5
#: Seconds that connecting may take, from the TCP handshake to the open virtual host.
CONNECT_TIMEOUT_S = 5.0
#: Seconds that making a fresh connection ready may take: some forty declarations on a busy cluster.
PREPARE_TIMEOUT_S = 30.0
#: Seconds before the second try, doubled with every further one up to the longest.
FIRST_BACKOFF_S = 0.2
LONGEST_BACKOFF_S = 2.0
#: Seconds after which a connection counts as one that holds: one that is lost sooner is a failure like the others.
STEADY_S = 5.0
#: Seconds that closing an AMQP channel may take: a node under an alarm does not read what we send.
CLOSE_TIMEOUT_S = 3.0
#: Seconds that closing a connection may take; then its socket is closed all the same. Less than a process has left
#: after its grace.
FAREWELL_S = 1.0

#: What the client library raises when the other side is away, refuses, or answers nonsense. RuntimeError is
#: how it tells of a connection that closed under a call.
TROUBLE = (AMQPError, OSError, TimeoutError, RuntimeError)


class State(Enum):
    """Where a link stands."""

    IDLE = "idle"
    CONNECTING = "connecting"
    OPEN = "open"
    CLOSED = "closed"


#: What a failure to connect is called in the log, where it is not the broker's being away.
_EVENTS: dict[type[BaseException], str] = {
    TopologyMismatch: "broker.mismatch",
    BrokerRefused: "broker.refused",
}


class Link:
    """Keeps one connection up until closed; `prepare` runs on each new one before anyone else gets it.

    `prepare` has a timeout of its own, and raises what the client library raises or TopologyMismatch.
    """

    def __init__(self, url: str, name: str, prepare: Callable[[AbstractConnection], Awaitable[None]]) -> None:
        # The library tells of one cut several times, with tracebacks. The events below tell it once.
        for library in ("aio_pika", "aiormq"):
            logging.getLogger(library).setLevel(logging.CRITICAL)
        given = URL(url)
        self._url = given if "heartbeat" in given.query else given.update_query(heartbeat=HEARTBEAT_S)
        self._shown = shown(url)
        self._name = name
        self._prepare = prepare
        self._connection: AbstractConnection | None = None
        self._opened: aio_pika.Connection | None = None
        self._mismatch: TopologyMismatch | None = None
        self._refusal: BrokerRefused | None = None
        self._reason = "it has not been connected to yet"
        self._changed = asyncio.Event()
        self._dropped = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self.state = State.IDLE
        #: Counts the connections there have been.
        self.generation = 0
        #: The connection's way to the broker and back.
        self.line = Line(Sieve(time.monotonic))

    def start(self) -> None:
        """Begin to connect; does nothing the second time."""
        if self._task is None and self.state is State.IDLE:
            self._task = asyncio.create_task(self._run(), name=f"link-{self._name}")

    async def ready(self, *, patient: bool = True) -> AbstractConnection:
        """Wait for the connection, as long as the caller's own timeout allows.

        Raises TopologyMismatch while the broker's queues do not fit, BrokerUnavailable after close; and
        BrokerRefused while the broker refuses us, where that is not waited out (`patient`).
        """
        while True:
            if self._connection is not None:
                return self._connection
            if self.state is State.CLOSED:
                raise BrokerUnavailable("The connection to RabbitMQ was closed by this process.")
            if self._mismatch is not None:
                raise TopologyMismatch(str(self._mismatch))
            if self._refusal is not None and not patient:
                raise BrokerRefused(self.trouble())
            await self._changed.wait()

    def trouble(self) -> str:
        """Say why there is no connection, for an error message."""
        return f"RabbitMQ at {self._shown} cannot be used: {self._reason}"

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
        self._reason = "it was closed by this process"
        self._turn(State.CLOSED)

    def _turn(self, state: State) -> None:
        self.state = state
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        failures = 0
        told = ""
        self._turn(State.CONNECTING)
        while True:
            try:
                connection = await self._connect()
            except Exception as error:
                # Whatever it is: a link that ended here would never connect again.
                self._mismatch = error if isinstance(error, TopologyMismatch) else None
                self._refusal = error if isinstance(error, BrokerRefused) else None
                self._reason = describe(error)
                event = _EVENTS.get(type(error), "broker.unreachable")
                if event != told:
                    told = event
                    log.log(
                        logging.WARNING if event == "broker.unreachable" else logging.ERROR,
                        event,
                        link=self._name,
                        url=self._shown,
                        reason=self._reason,
                    )
                self._turn(State.CONNECTING)
            else:
                told = ""
                since = loop.time()
                await self._stay(connection)
                if loop.time() - since >= STEADY_S:
                    failures = 0
            await asyncio.sleep(backoff(failures))
            failures += 1

    async def _connect(self) -> AbstractConnection:
        properties: FieldTable = {"connection_name": f"postbote {self._name}"}
        opened = aio_pika.Connection(self._url, client_properties=properties)
        line = Line(Sieve(asyncio.get_running_loop().time))
        words = ClosingWords()
        line.sieve.pass_to(0, words)
        opened.kwargs["transport_factory"] = SiftedTransport(line)
        try:
            await within(CONNECT_TIMEOUT_S, opened.connect())
            assert opened.transport is not None
            connection = opened.transport.connection
            await self._prepare(connection)
        except BaseException as error:
            await _farewell(opened, line)
            if not words.text or not isinstance(error, TROUBLE):
                raise
            url = opened.url
            refusal = why_refused(words.code, words.text, url.user or "guest", url.path[1:] or "/")
            raise (BrokerRefused(refusal) if refusal else ConnectionError(words.text)) from None
        self._opened = opened
        self.line = line
        return connection

    async def _stay(self, connection: AbstractConnection) -> None:
        try:
            closing = connection.closing
            self._dropped = asyncio.Event()
            dropped = asyncio.create_task(self._dropped.wait())
            self.generation += 1
            self._mismatch = self._refusal = None
            self._connection = connection
            self._turn(State.OPEN)
            log.info("broker.connected", link=self._name, url=self._shown, generation=self.generation)
            try:
                await asyncio.wait({closing, dropped}, return_when=asyncio.FIRST_COMPLETED)
                if closing.done():
                    self._reason = describe(None if closing.cancelled() else closing.exception())
                log.warning("broker.lost", link=self._name, url=self._shown, reason=self._reason)
            finally:
                dropped.cancel()
        finally:
            self._connection = None
            self._turn(State.CONNECTING)
            if self._opened is not None:
                await _farewell(self._opened, self.line)


def backoff(failures: int) -> float:
    """Draw the seconds to wait after so many failures in a row, 0.1 to 2, spread to avoid a rush."""
    longest = min(LONGEST_BACKOFF_S, FIRST_BACKOFF_S * 2.0 ** min(failures, 10))
    return longest * random.uniform(0.5, 1.0)  # noqa: S311 - keeps no secret


def blocked(connection: AbstractConnection) -> bool:
    """Tell whether an alarm of the broker (memory, disk) keeps this connection from publishing."""
    # The library only lets one wait for that: where it does not wait, there is none.
    waiting = connection.ready()
    try:
        waiting.send(None)
    except StopIteration:
        return False
    finally:
        waiting.close()
    return True


def describe(error: BaseException | None) -> str:
    """Put an error of the client library in words, on one line; never with the URL and its password."""
    if error is None or isinstance(error, asyncio.CancelledError):
        return "the connection was closed"
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, ProbableAuthenticationError):
        return "it refuses the user or the password"
    return " ".join((str(error) or type(error).__name__).split())


async def close_channel(channel: AbstractChannel) -> None:
    """Close an AMQP channel, as far as the broker answers in time."""
    with suppress(*TROUBLE):
        await within(CLOSE_TIMEOUT_S, channel.close())


async def _farewell(connection: aio_pika.Connection, line: Line) -> None:
    try:
        with suppress(Exception):
            await within(FAREWELL_S, connection.close(ConnectionClosed(0, "closed by this process")))
    finally:
        # Whatever the library still waits for on this connection ends with it.
        line.end()
