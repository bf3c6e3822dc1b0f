"""Announcements on RabbitMQ: a fanout exchange, and for each listener a queue that ends with its connection."""

import asyncio
from collections import deque
from uuid import uuid4

from aiormq import spec
from aiormq.abc import AbstractChannel, AbstractConnection, DeliveredMessage

from broker.errors import BrokerUnavailable, SubscriptionLost, TopologyMismatch
from broker.port import Envelope
from broker.rabbitmq.calls import within
from broker.rabbitmq.link import TROUBLE, Link, close_channel, describe
from broker.rabbitmq.sieve import Deliveries
from broker.rabbitmq.transport import Line
from broker.topology import CONTROL

#: Seconds that sending one may take.
ANNOUNCE_TIMEOUT_S = 1.0
#: Announcements kept for a listener that is busy, on the broker and here.
MOST_WAITING = 1000
#: Milliseconds after which one is of no use any more.
LASTS_MS = 10_000


class Announcer:
    """Sends announcements on an AMQP channel of its own, without confirms: the next one comes soon."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._channel: AbstractChannel | None = None
        self._turn = asyncio.Lock()

    async def announce(self, body: bytes) -> None:
        """Send one; raises BrokerUnavailable, under an alarm too."""
        try:
            async with asyncio.timeout(ANNOUNCE_TIMEOUT_S), self._turn:
                connection = await self._link.ready()
                await connection.ready()
                channel = self._channel
                if channel is None or channel.is_closed:
                    opening = connection.channel(publisher_confirms=False)
                    channel = self._channel = await within(None, opening, close_channel)
                properties = spec.Basic.Properties(expiration=str(LASTS_MS))
                await within(None, channel.basic_publish(body, exchange=CONTROL, properties=properties))
        except (TopologyMismatch, *TROUBLE) as error:
            raise BrokerUnavailable(f"It could not be announced: {describe(error)}") from None


class RabbitAnnouncements:
    """Listens on one AMQP channel, until that is closed by either side.

    By the sieve, for one message that the client library cannot decode would cost it the connection.
    """

    def __init__(self, channel: AbstractChannel, line: Line) -> None:
        self._channel = channel
        self._line = line
        self._deliveries = Deliveries(self._arrive)
        self._arrived: deque[bytes] = deque(maxlen=MOST_WAITING)
        self._lost: str | None = None
        self._wake = asyncio.Event()
        channel.closing.add_done_callback(self._on_closed)
        channel.on_consumer_cancel_callbacks.add(lambda _: self._lose("the broker cancelled it"))

    @classmethod
    async def open(cls, connection: AbstractConnection, line: Line) -> "RabbitAnnouncements":
        """Begin to listen. Raises what the client library raises where the broker refuses."""
        channel = await connection.channel(publisher_confirms=False)
        listener = cls(channel, line)
        try:
            line.sieve.pass_to(channel.number, listener._deliveries)
            name = f"{CONTROL}.{uuid4().hex}"
            await channel.queue_declare(
                name,
                exclusive=True,
                auto_delete=True,
                # Named, for a virtual host may have another type as its default.
                arguments={"x-queue-type": "classic", "x-max-length": MOST_WAITING},
            )
            await channel.queue_bind(name, CONTROL)
            await channel.basic_consume(name, listener._on_stray, no_ack=True)
        except BaseException:
            await listener.close()
            raise
        return listener

    async def receive(self) -> bytes:
        """Wait for the next one. Raises SubscriptionLost."""
        while True:
            if self._arrived:
                return self._arrived.popleft()
            if self._lost is not None:
                raise SubscriptionLost(f"Announcements are not heard any more: {self._lost}")
            self._wake.clear()
            await self._wake.wait()

    async def close(self) -> None:
        """Stop listening; the broker deletes the queue."""
        await close_channel(self._channel)
        self._line.sieve.leave(self._channel.number, self._deliveries)
        self._lose("it was closed by this process")

    def _arrive(self, envelope: Envelope) -> None:
        self._arrived.append(envelope.body)
        self._wake.set()

    async def _on_stray(self, _: DeliveredMessage) -> None:
        # The sieve takes every delivery; one that got past it is of a listener that is closed.
        self._lose("an announcement went astray")

    def _on_closed(self, closing: "asyncio.Future[object]") -> None:
        self._lose(describe(None if closing.cancelled() else closing.exception()))

    def _lose(self, reason: str) -> None:
        if self._lost is None:
            self._lost = reason
        self._wake.set()
