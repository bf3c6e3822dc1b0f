"""Publishes with confirms: pipelined, bounded in number and in time."""

import asyncio
import re
from collections.abc import Callable
from uuid import uuid4

from aiormq.abc import AbstractConnection
from aiormq.exceptions import ChannelInvalidStateError

from broker.errors import BrokerUnavailable, TopologyMismatch, Unpublishable
from broker.port import Envelope
from broker.rabbitmq.calls import within
from broker.rabbitmq.confirms import Sent
from broker.rabbitmq.link import CLOSE_TIMEOUT_S, TROUBLE, Link, State, blocked, close_channel, describe
from broker.rabbitmq.wire import Wire

#: Publishes on their way at a time: bounds memory, and how many a cut leaves in doubt.
IN_FLIGHT = 256
#: Seconds that a readiness check may take.
CHECK_TIMEOUT_S = 1.5
#: How RabbitMQ says what it takes, as it closes the AMQP channel: the setting max_message_size, in bytes.
_TOO_LARGE = re.compile(r"message size \d+ is larger than (?:configured )?max size (\d+)")


class Publisher:
    """Publishes over a link, on one AMQP channel at a time: calls of one task keep their order."""

    def __init__(
        self, link: Link, timeout_s: float, shortcut: Callable[[str, str], tuple[str, str] | None]
    ) -> None:
        self._link = link
        self._timeout_s = timeout_s
        #: Names the direct exchange and its key for an exchange and a key, where there are some.
        self._shortcut = shortcut
        #: How many more may be on their way, and what whoever has the turn waits on where none may.
        self._free = IN_FLIGHT
        self._freed: asyncio.Future[None] | None = None
        self._turn = asyncio.Lock()
        self._wire: Wire | None = None
        self._retiring: set[asyncio.Task[None]] = set()
        self._closed = False
        #: The largest body in bytes, once the broker has said so, and the connection on which it did.
        self._largest: int | None = None
        self._limited: AbstractConnection | None = None

    async def publish(self, exchange: str, envelope: Envelope) -> None:
        """Publish and wait for the confirm, up to the timeout.

        Raises BrokerUnavailable with the reason, and Unpublishable where no publish can carry it.
        """
        if self._largest is not None:
            self._refuse_too_large(envelope, self._largest)
        wire = self._wire
        sent: Sent | None = None
        message_id = envelope.id or uuid4().hex
        try:
            if (
                wire is not None
                and self._free
                and not self._turn.locked()
                and wire.usable()
                and wire.confirms.twin(message_id) is None
            ):
                sent = self._send(wire, exchange, envelope, message_id)
            else:
                async with asyncio.timeout(self._timeout_s):
                    wire, sent = await self._send_in_turn(exchange, envelope, message_id)
            reason = await sent.future
        except TimeoutError:
            if wire is None or sent is None:
                reason = await self._hindrance()
            elif await self._outlasts_alarm(wire, sent):
                reason = sent.reason
            else:
                # The confirms on this AMQP channel can no longer be trusted to come, nor to be in step.
                self._retire(wire, "a confirm did not come in time")
                reason = f"no confirm within {self._timeout_s:g} s; the broker may be short of memory or disk"
        except asyncio.CancelledError:
            if wire is not None and sent is not None and not sent.settled:
                sent.wait_on()
                asyncio.get_running_loop().call_later(self._timeout_s, self._overdue, wire, sent)
            raise
        except (BrokerUnavailable, TopologyMismatch, *TROUBLE) as error:
            reason = describe(error)
        if reason is not None:
            if self._largest is not None:
                self._refuse_too_large(envelope, self._largest)
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
                connection = await self._link.ready()
                await connection.ready()
                await within(None, _round_trip(connection))
        except TimeoutError:
            raise BrokerUnavailable(await self._hindrance()) from None
        except TROUBLE as error:
            raise BrokerUnavailable(describe(error)) from None

    async def close(self) -> None:
        """Give up what is on its way; the AMQP channel is closed with its connection."""
        self._closed = True
        wire, self._wire = self._wire, None
        if wire is not None:
            wire.end("it was closed by this process")

    async def closed(self) -> None:
        """Wait for what `close` and earlier failures left to do, once the connection is closed."""
        if self._retiring:
            await asyncio.wait(self._retiring, timeout=CLOSE_TIMEOUT_S)

    async def _send_in_turn(self, exchange: str, envelope: Envelope, message_id: str) -> tuple[Wire, Sent]:
        loop = asyncio.get_running_loop()
        began = loop.time()
        # One at a time, first come first served: nobody overtakes those who wait for an AMQP channel.
        async with self._turn:
            while not self._free:
                self._freed = loop.create_future()
                await self._freed
            wire = await self._open_wire()
            while (twin := wire.confirms.twin(message_id)) is not None:
                # Returned messages are told apart by their id: an id may be on its way only once.
                await asyncio.wait({twin.future})
                wire = await self._open_wire()
            return wire, self._send(wire, exchange, envelope, message_id, began)

    def _send(
        self, wire: Wire, exchange: str, envelope: Envelope, message_id: str, since: float | None = None
    ) -> Sent:
        sent = wire.send(exchange, envelope, message_id, since)
        self._free -= 1
        return sent

    def _refuse_too_large(self, envelope: Envelope, largest: int) -> None:
        if len(envelope.body) > largest:
            raise Unpublishable(
                f"Its body has {len(envelope.body):,} bytes, and RabbitMQ takes {largest:,} (max_message_size).",
                body_room=largest,
            )

    def _settled(self) -> None:
        self._free += 1
        if self._freed is not None and not self._freed.done():
            self._freed.set_result(None)

    async def _open_wire(self) -> Wire:
        if self._closed:
            raise BrokerUnavailable("The broker was closed by this process.")
        while (wire := self._wire) is not None and not wire.closed:
            # Does not return while an alarm of the broker blocks publishing connections: what was not sent
            # then cannot come twice.
            await wire.connection.ready()
            if wire is self._wire and not wire.closed:
                return wire
        connection = await self._link.ready()
        line = self._link.line
        await connection.ready()
        if connection is not self._limited:
            # A node that was started again may take more.
            self._largest = None
        channel = await within(None, connection.channel(publisher_confirms=True), close_channel)
        opened = self._wire = Wire(connection, channel, line, self._timeout_s, self._settled, self._shortcut)
        channel.closing.add_done_callback(lambda closing: self._on_closed(opened, closing))
        return opened

    def _on_closed(self, wire: Wire, closing: "asyncio.Future[object]") -> None:
        reason = describe(None if closing.cancelled() else closing.exception())
        if (told := _TOO_LARGE.search(reason)) is not None:
            self._largest, self._limited = int(told[1]), wire.connection
        wire.end(reason)
        self._retire(wire, "the AMQP channel was closed")

    async def _outlasts_alarm(self, wire: Wire, sent: Sent) -> bool:
        """Wait for a confirm for as long as an alarm holds it up; False where it is late without one.

        What was on its way when the alarm began is taken when it ends. Published again, it would come twice.
        """
        while not sent.settled and blocked(wire.connection):
            await asyncio.wait({sent.wait_on()}, timeout=CHECK_TIMEOUT_S)
        return sent.settled

    async def _hindrance(self) -> str:
        if self._link.state is not State.OPEN:
            return self._link.trouble()
        if blocked(await self._link.ready()):
            return "RabbitMQ blocks publishers, for it is short of memory or disk (see rabbitmqctl status)."
        return "RabbitMQ did not answer in time."

    def _overdue(self, wire: Wire, sent: Sent) -> None:
        if not sent.settled:
            self._retire(wire, "a confirm did not come in time")

    def _retire(self, wire: Wire, reason: str) -> None:
        if self._wire is wire:
            self._wire = None
        elif not wire.confirms:
            return
        task = asyncio.create_task(self._put_away(wire, reason))
        self._retiring.add(task)
        task.add_done_callback(self._retiring.discard)

    async def _put_away(self, wire: Wire, reason: str) -> None:
        try:
            await within(CLOSE_TIMEOUT_S, wire.channel.close(ChannelInvalidStateError(reason)))
        except TimeoutError:
            if not self._closed and not blocked(wire.connection):
                # Not even the closing of an AMQP channel is answered: the connection is dead.
                self._link.drop(wire.connection, "the broker does not answer")
        except TROUBLE:
            # It is closed then.
            pass
        wire.end("the connection was closed")


async def _round_trip(connection: AbstractConnection) -> None:
    # An open connection may be one to a machine that is gone.
    channel = await connection.channel(publisher_confirms=False)
    await channel.close()
