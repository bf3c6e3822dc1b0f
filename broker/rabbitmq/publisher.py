"""Publishes with confirms: pipelined, bounded in number and in time."""

import asyncio
from collections.abc import Callable
from uuid import uuid4

from aiormq import spec
from aiormq.abc import AbstractChannel, AbstractConnection
from aiormq.exceptions import ChannelInvalidStateError, DeliveryError, PublishError

from broker.errors import BrokerUnavailable, TopologyMismatch
from broker.port import Envelope
from broker.rabbitmq.link import CLOSE_TIMEOUT_S, TROUBLE, Link, State, blocked, closings_told, describe

#: Publishes on their way at a time: bounds memory, and how many a cut leaves in doubt.
IN_FLIGHT = 256
#: Seconds that a readiness check may take.
CHECK_TIMEOUT_S = 1.5
PERSISTENT = 2


class _Wire:
    """One AMQP channel in confirm mode, and the publishes that are on their way on it."""

    def __init__(self, connection: AbstractConnection, channel: AbstractChannel) -> None:
        self.connection = connection
        self.channel = channel
        self.sending: dict[str, asyncio.Task[str | None]] = {}

    def send(
        self, exchange: str, envelope: Envelope, message_id: str, settled: Callable[[], None]
    ) -> asyncio.Task[str | None]:
        """Publish as a task of its own, which ends with the reason where the broker did not take it.

        Its own, so that a caller who gives up tears neither a frame nor the count of confirms in two.
        """
        task = asyncio.create_task(self._send(exchange, envelope, message_id))
        self.sending[message_id] = task

        def done(_: object) -> None:
            del self.sending[message_id]
            settled()

        task.add_done_callback(done)
        return task

    async def _send(self, exchange: str, envelope: Envelope, message_id: str) -> str | None:
        try:
            # Not waiting for the socket lets the next one follow at once; IN_FLIGHT bounds what piles up.
            # aiormq's abstract class does not declare `wait`; its one implementation does.
            await self.channel.basic_publish(  # type: ignore[call-arg]
                envelope.body,
                exchange=exchange,
                routing_key=envelope.routing_key,
                mandatory=True,
                wait=False,
                properties=spec.Basic.Properties(
                    content_type="application/json",
                    delivery_mode=PERSISTENT,
                    message_id=message_id,
                    headers=dict(envelope.headers),
                ),
            )
        except PublishError:
            return f"no queue takes the routing key {envelope.routing_key!r}"
        except DeliveryError as refused:
            return f"the broker refused it ({describe(refused)})"
        except asyncio.CancelledError:
            # Either the library's word for a connection that was closed, or the wire is being put away.
            return "the connection was closed"
        except TROUBLE as error:
            return describe(error)
        return None


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
        task: asyncio.Task[str | None] | None = None
        try:
            async with asyncio.timeout(self._timeout_s):
                with closings_told():
                    wire, task = await self._begin(exchange, envelope)
                    reason = await asyncio.shield(task)
        except TimeoutError:
            if wire is None or task is None:
                reason = await self._hindrance()
            elif await self._outlasts_alarm(wire, task):
                reason = "the connection was closed" if task.cancelled() else task.result()
            else:
                # The confirms on this AMQP channel can no longer be trusted to come, nor to be in step.
                self._retire(wire, "a confirm did not come in time")
                reason = f"no confirm within {self._timeout_s:g} s; the broker may be short of memory or disk"
        except asyncio.CancelledError:
            if wire is not None and task is not None and not task.done():
                asyncio.get_running_loop().call_later(self._timeout_s, self._overdue, wire, task)
            raise
        except (BrokerUnavailable, TopologyMismatch, *TROUBLE) as error:
            reason = describe(error)
        if reason is not None:
            raise BrokerUnavailable(f"Message {envelope.id} could not be published to {exchange}: {reason}")

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

    async def _begin(self, exchange: str, envelope: Envelope) -> tuple[_Wire, asyncio.Task[str | None]]:
        message_id = envelope.id or uuid4().hex
        # One at a time, first come first served: nobody overtakes those who wait for an AMQP channel.
        async with self._turn:
            await self._slots.acquire()
            try:
                wire = await self._open_wire()
                while (twin := wire.sending.get(message_id)) is not None:
                    # The library matches returned messages by their id: an id may be on its way only once.
                    await asyncio.wait({twin})
                    wire = await self._open_wire()
            except BaseException:
                self._slots.release()
                raise
            return wire, wire.send(exchange, envelope, message_id, self._slots.release)

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
        await connection.ready()
        channel = await connection.channel(publisher_confirms=True, on_return_raises=True)
        opened = self._wire = _Wire(connection, channel)
        channel.closing.add_done_callback(lambda _: self._retire(opened, "the AMQP channel was closed"))
        return opened

    async def _outlasts_alarm(self, wire: _Wire, task: asyncio.Task[str | None]) -> bool:
        """Wait for a confirm for as long as an alarm holds it up; False where it is late without one.

        What was on its way when the alarm began is taken when it ends. Published again, it would come twice.
        """
        while not task.done() and await blocked(wire.connection):
            await asyncio.wait({task}, timeout=CHECK_TIMEOUT_S)
        return task.done()

    async def _hindrance(self) -> str:
        if self._link.state is not State.OPEN:
            return self._link.trouble()
        if await blocked(await self._link.ready()):
            return "RabbitMQ blocks publishers, for it is short of memory or disk (see rabbitmqctl status)."
        return "RabbitMQ did not answer in time."

    def _overdue(self, wire: _Wire, task: asyncio.Task[str | None]) -> None:
        if not task.done():
            self._retire(wire, "a confirm did not come in time")

    def _retire(self, wire: _Wire, reason: str) -> None:
        if self._wire is wire:
            self._wire = None
        elif not wire.sending:
            return
        task = asyncio.create_task(self._put_away(wire, reason))
        self._retiring.add(task)
        task.add_done_callback(self._retiring.discard)

    async def _put_away(self, wire: _Wire, reason: str) -> None:
        closing = asyncio.ensure_future(wire.channel.close(ChannelInvalidStateError(reason)))
        closing.add_done_callback(lambda done: done.cancelled() or done.exception())
        _, late = await asyncio.wait({closing}, timeout=CLOSE_TIMEOUT_S)
        if late and not self._closed and not await blocked(wire.connection):
            # Not even the closing of an AMQP channel is answered: the connection is dead.
            self._link.drop(wire.connection, "the broker does not answer")
        stuck = set(wire.sending.values())
        for task in stuck:
            task.cancel()
        if stuck:
            await asyncio.wait(stuck)
