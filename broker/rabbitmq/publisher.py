"""Publishes with confirms: pipelined, bounded in number and in time."""

import asyncio
from collections.abc import Callable
from uuid import uuid4

from aiormq.abc import AbstractChannel, AbstractConnection
from aiormq.exceptions import ChannelInvalidStateError

from broker.errors import BrokerUnavailable, TopologyMismatch
from broker.port import Envelope
from broker.rabbitmq.confirms import Confirms
from broker.rabbitmq.frames import HEAD_SIZE, publication
from broker.rabbitmq.link import CLOSE_TIMEOUT_S, TROUBLE, Link, State, blocked, closings_told, describe
from broker.rabbitmq.transport import Line

#: Publishes on their way at a time: bounds memory, and how many a cut leaves in doubt.
IN_FLIGHT = 256
#: Seconds that a readiness check may take.
CHECK_TIMEOUT_S = 1.5


class _Wire:
    """One AMQP channel in confirm mode, and the publishes that are on their way on it.

    It writes to the connection's socket itself: what is published in one turn of the event loop goes in one piece.
    """

    def __init__(
        self,
        connection: AbstractConnection,
        channel: AbstractChannel,
        line: Line,
        settled: Callable[[], None],
    ) -> None:
        self.connection = connection
        self.channel = channel
        self.confirms = Confirms(settled)
        self._line = line
        # 0 is no limit, and then a part may be as large as RabbitMQ's own default has it.
        self._largest = (connection.connection_tune.frame_max or 131_072) - HEAD_SIZE - 1
        self._outgoing: list[bytes] = []
        line.sieve.pass_to(channel.number, self.confirms)

    def send(self, exchange: str, envelope: Envelope, message_id: str) -> "asyncio.Future[str | None]":
        """Publish; what is returned ends with the reason where the broker did not take it. Raises ValueError."""
        frames = publication(
            self.channel.number,
            exchange,
            envelope.routing_key,
            message_id,
            envelope.headers,
            envelope.body,
            self._largest,
        )
        if not self._outgoing:
            asyncio.get_running_loop().call_soon(self._write)
        self._outgoing.append(frames)
        return self.confirms.add(message_id)

    def usable(self) -> bool:
        """Tell whether the AMQP channel stands, and no alarm keeps it from publishing."""
        return not self.channel.is_closed and not blocked(self.connection)

    def end(self, reason: str) -> None:
        """End what is on its way; what the broker says of it later is the library's."""
        self._line.sieve.leave(self.channel.number, self.confirms)
        self._outgoing.clear()
        self.confirms.give_up(reason)

    def _write(self) -> None:
        frames, self._outgoing = self._outgoing, []
        if frames and not self.channel.is_closed:
            # Not waiting for the socket lets the next one follow at once; IN_FLIGHT bounds what piles up.
            self._line.write(b"".join(frames))


class Publisher:
    """Publishes over a link, on one AMQP channel at a time: calls of one task keep their order."""

    def __init__(self, link: Link, timeout_s: float) -> None:
        self._link = link
        self._timeout_s = timeout_s
        self._slots = asyncio.Semaphore(IN_FLIGHT)
        self._turn = asyncio.Lock()
        self._wire: _Wire | None = None
        self._retiring: set[asyncio.Task[None]] = set()
        self._closed = False

    async def publish(self, exchange: str, envelope: Envelope) -> None:
        """Publish and wait for the confirm, up to the timeout. Raises BrokerUnavailable with the reason."""
        wire: _Wire | None = None
        sent: asyncio.Future[str | None] | None = None
        try:
            async with asyncio.timeout(self._timeout_s):
                with closings_told():
                    wire, sent = await self._begin(exchange, envelope)
                # Shielded: a caller who gives up leaves the count of confirms whole.
                reason = await asyncio.shield(sent)
        except TimeoutError:
            if wire is None or sent is None:
                reason = await self._hindrance()
            elif await self._outlasts_alarm(wire, sent):
                reason = sent.result()
            else:
                # The confirms on this AMQP channel can no longer be trusted to come, nor to be in step.
                self._retire(wire, "a confirm did not come in time")
                reason = f"no confirm within {self._timeout_s:g} s; the broker may be short of memory or disk"
        except asyncio.CancelledError:
            if wire is not None and sent is not None and not sent.done():
                asyncio.get_running_loop().call_later(self._timeout_s, self._overdue, wire, sent)
            raise
        except (BrokerUnavailable, TopologyMismatch, *TROUBLE) as error:
            reason = describe(error)
        if reason is not None:
            raise BrokerUnavailable(
                f"Message {envelope.id} could not be published to {exchange} with routing key "
                f"{envelope.routing_key!r}: {reason}"
            )

    async def check(self) -> None:
        """Return where publishing is possible now; raises BrokerUnavailable otherwise."""
        if self._link.state is not State.OPEN:
            raise BrokerUnavailable(self._link.trouble())
        try:
            async with asyncio.timeout(CHECK_TIMEOUT_S):
                with closings_told():
                    connection = await self._link.ready()
                    await connection.ready()
                    # A round trip: an open connection may be one to a machine that is gone.
                    channel = await connection.channel(publisher_confirms=False)
                    await channel.close()
        except TimeoutError:
            raise BrokerUnavailable(await self._hindrance()) from None
        except TROUBLE as error:
            raise BrokerUnavailable(describe(error)) from None

    async def close(self) -> None:
        """Give up what is on its way and close the AMQP channel."""
        self._closed = True
        if self._wire is not None:
            self._retire(self._wire, "closing")
        while self._retiring:
            await asyncio.wait(self._retiring)

    async def _begin(self, exchange: str, envelope: Envelope) -> tuple[_Wire, "asyncio.Future[str | None]"]:
        message_id = envelope.id or uuid4().hex
        wire = self._wire
        if (
            wire is not None
            and not self._turn.locked()
            and not self._slots.locked()
            and wire.usable()
            and wire.confirms.twin(message_id) is None
        ):
            # Takes one at once: nobody else comes in between.
            await self._slots.acquire()
            return wire, self._send(wire, exchange, envelope, message_id)
        # One at a time, first come first served: nobody overtakes those who wait for an AMQP channel.
        async with self._turn:
            await self._slots.acquire()
            try:
                wire = await self._open_wire()
                while (twin := wire.confirms.twin(message_id)) is not None:
                    # Returned messages are told apart by their id: an id may be on its way only once.
                    await asyncio.wait({twin})
                    wire = await self._open_wire()
            except BaseException:
                self._slots.release()
                raise
            return wire, self._send(wire, exchange, envelope, message_id)

    def _send(
        self, wire: _Wire, exchange: str, envelope: Envelope, message_id: str
    ) -> "asyncio.Future[str | None]":
        try:
            return wire.send(exchange, envelope, message_id)
        except BaseException:
            self._slots.release()
            raise

    async def _open_wire(self) -> _Wire:
        if self._closed:
            raise BrokerUnavailable("The broker was closed by this process.")
        while (wire := self._wire) is not None and not wire.channel.is_closed:
            # Does not return while an alarm of the broker blocks publishing connections: what was not sent
            # then cannot come twice.
            await wire.connection.ready()
            if wire is self._wire and not wire.channel.is_closed:
                return wire
        connection = await self._link.ready()
        line = self._link.line
        await connection.ready()
        channel = await connection.channel(publisher_confirms=True)
        opened = self._wire = _Wire(connection, channel, line, self._slots.release)
        channel.closing.add_done_callback(lambda closing: self._on_closed(opened, closing))
        return opened

    def _on_closed(self, wire: _Wire, closing: "asyncio.Future[object]") -> None:
        wire.end(describe(None if closing.cancelled() else closing.exception()))
        self._retire(wire, "the AMQP channel was closed")

    async def _outlasts_alarm(self, wire: _Wire, sent: "asyncio.Future[str | None]") -> bool:
        """Wait for a confirm for as long as an alarm holds it up; False where it is late without one.

        What was on its way when the alarm began is taken when it ends. Published again, it would come twice.
        """
        while not sent.done() and blocked(wire.connection):
            await asyncio.wait({sent}, timeout=CHECK_TIMEOUT_S)
        return sent.done()

    async def _hindrance(self) -> str:
        if self._link.state is not State.OPEN:
            return self._link.trouble()
        if blocked(await self._link.ready()):
            return "RabbitMQ blocks publishers, for it is short of memory or disk (see rabbitmqctl status)."
        return "RabbitMQ did not answer in time."

    def _overdue(self, wire: _Wire, sent: "asyncio.Future[str | None]") -> None:
        if not sent.done():
            self._retire(wire, "a confirm did not come in time")

    def _retire(self, wire: _Wire, reason: str) -> None:
        if self._wire is wire:
            self._wire = None
        elif not wire.confirms:
            return
        task = asyncio.create_task(self._put_away(wire, reason))
        self._retiring.add(task)
        task.add_done_callback(self._retiring.discard)

    async def _put_away(self, wire: _Wire, reason: str) -> None:
        closing = asyncio.ensure_future(wire.channel.close(ChannelInvalidStateError(reason)))
        closing.add_done_callback(lambda done: done.cancelled() or done.exception())
        _, late = await asyncio.wait({closing}, timeout=CLOSE_TIMEOUT_S)
        if late and not self._closed and not blocked(wire.connection):
            # Not even the closing of an AMQP channel is answered: the connection is dead.
            self._link.drop(wire.connection, "the broker does not answer")
        wire.end("the connection was closed")
