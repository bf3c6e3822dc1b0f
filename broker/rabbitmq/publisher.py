"""Publishes with confirms: pipelined, bounded in number and in time."""

import asyncio
from collections.abc import Callable

import structlog
from aiormq import spec
from aiormq.abc import AbstractChannel, AbstractConnection
from aiormq.exceptions import ChannelInvalidStateError, DeliveryError, PublishError

from broker.errors import BrokerUnavailable, TopologyMismatch
from broker.port import Envelope
from broker.rabbitmq.link import CLOSE_TIMEOUT_S, TROUBLE, Link, describe

log = structlog.get_logger()

#: Publishes on their way at a time, written and not yet confirmed: bounds memory, and what a cut leaves in doubt.
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

    def send(self, exchange: str, envelope: Envelope, settled: Callable[[], None]) -> asyncio.Task[str | None]:
        """Publish as a task of its own, which ends with the reason where the broker did not take it.

        Its own, so that a caller who gives up does not tear a frame or the count of confirms in two.
        """
        task = asyncio.create_task(self._send(exchange, envelope))
        self.sending[envelope.id] = task

        def done(_: object) -> None:
            if self.sending.get(envelope.id) is task:
                del self.sending[envelope.id]
            settled()

        task.add_done_callback(done)
        return task

    async def _send(self, exchange: str, envelope: Envelope) -> str | None:
        try:
            # Not waiting for the socket lets the next one follow at once; IN_FLIGHT bounds what piles up.
            await self.channel.basic_publish(
                envelope.body,
                exchange=exchange,
                routing_key=envelope.routing_key,
                mandatory=True,
                wait=False,
                properties=spec.Basic.Properties(
                    content_type="application/json",
                    delivery_mode=PERSISTENT,
                    message_id=envelope.id or None,
                    headers=dict(envelope.headers),
                ),
            )
        except PublishError as returned:
            return f"no queue takes {envelope.routing_key!r} from {exchange} ({describe(returned)})"
        except DeliveryError as refused:
            return f"the broker refused it ({describe(refused)})"
        except asyncio.CancelledError:
            if _cancelled_from_outside():
                raise
            return "the connection was closed"
        except TROUBLE as error:
            return describe(error)
        return None


def _cancelled_from_outside() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


class Publisher:
    """Publishes over a link, on one AMQP channel at a time: calls of one task keep their order."""

    def __init__(self, link: Link, timeout_s: float) -> None:
        self._link = link
        self._timeout_s = timeout_s
        self._slots = asyncio.Semaphore(IN_FLIGHT)
        self._opening = asyncio.Lock()
        self._wire: _Wire | None = None
        self._retiring: set[asyncio.Task[None]] = set()
        self._closed = False

    async def publish(self, exchange: str, envelope: Envelope) -> None:
        """Publish and wait for the confirm, up to the timeout. Raises BrokerUnavailable with the reason."""
        wire: _Wire | None = None
        task: asyncio.Task[str | None] | None = None
        try:
            async with asyncio.timeout(self._timeout_s):
                await self._slots.acquire()
                try:
                    wire = await self._open_wire()
                    while (twin := wire.sending.get(envelope.id)) is not None:
                        # Returned messages are matched by their id, so one id may be on its way only once.
                        await asyncio.wait({twin})
                        wire = await self._open_wire()
                except BaseException:
                    self._slots.release()
                    raise
                task = wire.send(exchange, envelope, self._slots.release)
                reason = await asyncio.shield(task)
        except TimeoutError:
            if wire is not None and task is not None:
                self._retire(wire, "a confirm did not come in time")
                reason = f"no confirm within {self._timeout_s:g} s; it may be short of memory or disk"
            else:
                reason = self._link.trouble()
        except asyncio.CancelledError:
            if wire is not None and task is not None and not task.done():
                asyncio.get_running_loop().call_later(self._timeout_s, self._overdue, wire, task)
            raise
        except (TopologyMismatch, *TROUBLE) as error:
            reason = describe(error)
        if reason is not None:
            raise BrokerUnavailable(f"Message {envelope.id} could not be published to {exchange}: {reason}.")

    async def check(self) -> None:
        """Return where publishing is possible now; raises BrokerUnavailable otherwise."""
        try:
            async with asyncio.timeout(CHECK_TIMEOUT_S):
                connection = await self._link.ready()
                await connection.ready()
                await self._open_wire()
        except TimeoutError:
            raise BrokerUnavailable(f"{self._link.trouble()}.") from None
        except (TopologyMismatch, *TROUBLE) as error:
            raise BrokerUnavailable(describe(error)) from None

    async def close(self) -> None:
        """Give up what is on its way and close the AMQP channel."""
        self._closed = True
        if self._wire is not None:
            self._retire(self._wire, "closing")
        while self._retiring:
            await asyncio.wait(self._retiring)

    async def _open_wire(self) -> _Wire:
        wire = self._wire
        if wire is not None and not wire.channel.is_closed:
            return wire
        async with self._opening:
            if self._wire is not None and not self._wire.channel.is_closed:
                return self._wire
            if self._closed:
                raise BrokerUnavailable("The broker was closed by this process.")
            connection = await self._link.ready()
            # Does not return while the broker is blocked by a memory or disk alarm.
            await connection.ready()
            opening = asyncio.ensure_future(connection.channel(publisher_confirms=True, on_return_raises=True))
            channel = await opening
            wire = self._wire = _Wire(connection, channel)
            channel.closing.add_done_callback(lambda _: self._retire(wire, "the AMQP channel was closed"))
            return wire

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
        if late and not self._closed:
            # Not even the AMQP channel's close is answered: the connection is dead, or an alarm stops it.
            self._link.drop(wire.connection, "the broker does not answer")
        for task in list(wire.sending.values()):
            task.cancel()
        if wire.sending:
            await asyncio.wait(set(wire.sending.values()))
