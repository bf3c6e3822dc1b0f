"""The broker port on RabbitMQ: two connections, one topology."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import gettempdir
from typing import Any, Protocol, TypeVar

import structlog
from aiormq.abc import AbstractConnection
from aiormq.exceptions import ChannelNotFoundEntity

from broker.errors import BrokerRefused, BrokerUnavailable, TopologyMismatch
from broker.port import Announcements, Envelope, Subscription
from broker.rabbitmq.announcements import Announcer, RabbitAnnouncements
from broker.rabbitmq.calls import within
from broker.rabbitmq.copies import Copies
from broker.rabbitmq.declare import make_sure, without_dead_letters
from broker.rabbitmq.link import PREPARE_TIMEOUT_S, TROUBLE, Link, backoff, describe
from broker.rabbitmq.publisher import Publisher
from broker.rabbitmq.refusals import too_few_channels
from broker.rabbitmq.spool import Spool
from broker.rabbitmq.subscription import RabbitSubscription
from broker.room import IN_HAND_BYTES, Room, share_of
from broker.topology import CONTROL, Topology

log = structlog.get_logger()


class Hold(Protocol):
    """What is held on the consuming connection until it is closed."""

    async def close(self) -> None:
        """Give it up."""
        ...


H = TypeVar("H", bound=Hold)

#: Seconds that the broker may take to begin serving a subscription.
SUBSCRIBE_TIMEOUT_S = 10.0


class RabbitBroker:
    """Publishes and subscribes on one RabbitMQ, 3.10 to 4.x.

    Publishing and consuming have a connection each: a memory or disk alarm blocks connections that publish,
    and deliveries go on meanwhile. Copies for others have a third one, for their queues may hold it up.
    """

    def __init__(
        self,
        url: str,
        topology: Topology,
        publish_timeout_s: float = 5.0,
        *,
        in_hand_bytes: int = IN_HAND_BYTES,
        spool_folder: Path | None = None,
    ) -> None:
        self._topology = topology
        self._declaring = asyncio.Lock()
        self._publishing = Link(url, "publishing", self._make_sure)
        self._consuming = Link(url, "consuming", self._make_sure)
        self._publisher = Publisher(self._publishing, publish_timeout_s, topology.shortcut)
        self._announcer = Announcer(self._publishing)
        self._copies = Copies(Link(url, "copying", _nothing_to_prepare))
        self._share = share_of(in_hand_bytes, topology.partitions)
        self._spool = Spool(spool_folder or Path(gettempdir()), lambda: self._consuming.line)

    async def start(self, *, patient: bool = True) -> None:
        """Connect and make sure of the topology; waits for the broker as long as it takes.

        Raises TopologyMismatch, and BrokerRefused where it is not `patient`.
        """
        self._publishing.start()
        self._consuming.start()
        try:
            await self._publishing.ready(patient=patient)
            await self._consuming.ready(patient=patient)
        except BaseException:
            await self.close()
            raise

    async def publish(self, exchange: str, envelope: Envelope) -> None:
        """Publish, and return once that is confirmed. Raises BrokerUnavailable within the timeout."""
        await self._publisher.publish(exchange, envelope)

    def copy(self, envelope: Envelope) -> None:
        """Give those who have bound a queue to `postbote.responses` a copy of a response, soon."""
        self._copies.copy(envelope)

    @asynccontextmanager
    async def subscribe(self, queue: str, prefetch: int) -> AsyncIterator[Subscription]:
        """Hold a queue; entering goes on trying until the broker serves it."""
        subscription = await self._hold(
            queue,
            lambda connection: RabbitSubscription.open(
                connection, self._consuming.line, queue, prefetch, Room(self._share), self._spool
            ),
        )
        try:
            yield subscription
        finally:
            await subscription.close()

    async def announce(self, body: bytes) -> None:
        """Tell all who listen; raises BrokerUnavailable where that cannot be sent soon."""
        await self._announcer.announce(body)

    @asynccontextmanager
    async def listen(self) -> AsyncIterator[Announcements]:
        """Listen to announcements; entering goes on trying until the broker serves them."""
        listener = await self._hold(
            CONTROL, lambda connection: RabbitAnnouncements.open(connection, self._consuming.line)
        )
        try:
            yield listener
        finally:
            await listener.close()

    async def check(self) -> None:
        """Return where the broker can take messages now; raises BrokerUnavailable otherwise."""
        await self._publisher.check()

    async def without_dead_letters(self) -> list[str]:
        """Name the queues that were made without a dead-letter exchange: what expires there may be lost.

        Raises BrokerUnavailable.
        """
        try:
            async with asyncio.timeout(PREPARE_TIMEOUT_S):
                connection = await self._publishing.ready()
            return await within(PREPARE_TIMEOUT_S, without_dead_letters(connection, self._topology))
        except TROUBLE as error:
            raise BrokerUnavailable(describe(error)) from None

    async def close(self) -> None:
        """Close both connections; publishes that are on their way end with BrokerUnavailable."""
        await self._publisher.close()
        await asyncio.gather(self._publishing.close(), self._consuming.close(), self._copies.close())
        await self._publisher.closed()
        await self._spool.close()

    async def _hold(self, queue: str, open_on: Callable[[AbstractConnection], Coroutine[Any, Any, H]]) -> H:
        failures = 0
        while True:
            try:
                return await self._open(open_on)
            except (TopologyMismatch, *TROUBLE) as error:
                # Also a mismatch that came about since the start: an operator can end it, and nobody else.
                if failures == 0:
                    log.warning("broker.subscribing_failed", queue=queue, reason=describe(error))
            await asyncio.sleep(backoff(failures))
            failures += 1

    async def _open(self, open_on: Callable[[AbstractConnection], Coroutine[Any, Any, H]]) -> H:
        connection = await self._consuming.ready()
        try:
            return await within(SUBSCRIBE_TIMEOUT_S, open_on(connection), _give_up)
        except ChannelNotFoundEntity:
            # Somebody deleted the queue while the connection stood.
            await self._make_sure(connection)
        return await within(SUBSCRIBE_TIMEOUT_S, open_on(connection), _give_up)

    async def _make_sure(self, connection: AbstractConnection) -> None:
        tune = connection.connection_tune
        if (refusal := too_few_channels(tune.channel_max, self._topology.partitions)) is not None:
            raise BrokerRefused(refusal)
        # One at a time: both connections come up together, and the second then finds all in place.
        async with asyncio.timeout(2 * PREPARE_TIMEOUT_S), self._declaring:
            await within(PREPARE_TIMEOUT_S, make_sure(connection, self._topology))


async def _nothing_to_prepare(_: AbstractConnection) -> None:
    # Made sure of on the other two.
    return


async def _give_up(hold: Hold) -> None:
    # Nobody waits for it any more, and the queue is another's to hold.
    await hold.close()
