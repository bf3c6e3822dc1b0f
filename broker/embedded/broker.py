"""The embedded broker: the queues of one process, in a file. No server needed.

Publishes and acknowledgements that come while a transaction is being written make up the next one together,
so that one wait for the disk serves many.
"""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from itertools import chain
from pathlib import Path
from typing import TypeVar

import structlog

from broker.batching import Batcher
from broker.disk import require_space
from broker.embedded.announcements import EmbeddedAnnouncements
from broker.embedded.store import Publication, QueueFile
from broker.embedded.subscription import EmbeddedSubscription, Fetched
from broker.errors import BrokerUnavailable
from broker.port import Announcements, Envelope, Subscription
from broker.room import IN_HAND_BYTES, Room, share_of
from broker.topology import Topology

log = structlog.get_logger()

T = TypeVar("T")

#: Publishes that may wait for the file at a time; whoever publishes more waits.
MOST_WAITING = 4096
#: Publishes in one transaction.
BATCH = 1024
#: How long a publish waits for others to be written with where there are many, in seconds.
BUSY_LINGER_S = 0.005
#: How long an acknowledgement waits for something to be written with, in seconds.
ACKS_LINGER_S = 0.02
#: Routes remembered; keys hold channel ids, so there may be many.
MOST_ROUTES = 10_000


class EmbeddedBroker:
    """The broker port on one SQLite file, for one process."""

    def __init__(self, path: Path, topology: Topology, *, in_hand_bytes: int = IN_HAND_BYTES) -> None:
        self._path = path
        self._share = share_of(in_hand_bytes, topology.partitions)
        self._topology = topology
        self._routes: dict[tuple[str, str], tuple[str, ...]] = {}
        # One thread of its own: SQLite blocks, and what one thread does needs no locks.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="queues")
        self._file: QueueFile | None = None
        self._publications: Batcher[Publication, None] = Batcher(
            self._apply, BATCH, busy_linger_s=BUSY_LINGER_S, size=_size
        )
        self._room = asyncio.Semaphore(MOST_WAITING)
        self._number = 0
        #: Numbers up to this may have been handed out before, by this process or the one before it.
        self._handed_out: dict[str, int] = defaultdict(int)
        #: Acknowledged, and not yet deleted: the next transaction does, whatever it is for.
        self._acknowledged: list[int] = []
        self._settling: asyncio.Task[None] | None = None
        self._subscriptions: dict[str, EmbeddedSubscription] = {}
        self._holds: dict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._listeners: set[EmbeddedAnnouncements] = set()

    async def start(self, *, patient: bool = True) -> None:
        """Open the file. Raises BrokerError where another process has it, or TopologyMismatch; nobody is refused."""
        try:
            self._file = await self._in_thread(lambda: QueueFile(self._path, self._topology))
            self._number = await self._in_thread(self._file.highest)
        except BaseException:
            await self.close()
            raise
        for queue in self._topology.queues:
            self._handed_out[queue.name] = self._number

    async def publish(self, exchange: str, envelope: Envelope) -> None:
        """Publish; on the disk when it returns. Raises BrokerUnavailable, on a full disk for example."""
        queues = self._route(exchange, envelope.routing_key)
        if not queues:
            raise BrokerUnavailable(
                f"Message {envelope.id} could not be published to {exchange}: "
                f"no queue takes the routing key {envelope.routing_key!r}"
            )
        async with self._room:
            added = []
            for queue in queues:
                self._number += 1
                added.append((self._number, queue, envelope))
            await self._publications.submit(added)

    def copy(self, envelope: Envelope) -> None:
        """Do nothing: no queue of anybody else's is in this file."""

    @asynccontextmanager
    async def subscribe(self, queue: str, prefetch: int) -> AsyncIterator[Subscription]:
        """Hold a queue; another subscriber of it waits until the hold is given up."""
        async with self._holds[queue]:
            subscription = EmbeddedSubscription(self, queue, prefetch, Room(self._share))
            self._subscriptions[queue] = subscription
            if self._file is None:
                subscription.lose("the queues' file is not open")
            try:
                yield subscription
            finally:
                del self._subscriptions[queue]
                await asyncio.shield(subscription.close())

    async def announce(self, body: bytes) -> None:
        """Tell all who listen in this process; raises BrokerUnavailable after close."""
        self._opened()
        for listener in self._listeners:
            listener.tell(body)

    @asynccontextmanager
    async def listen(self) -> AsyncIterator[Announcements]:
        """Listen to announcements of this process."""
        listener = EmbeddedAnnouncements()
        if self._file is None:
            listener.close()
        self._listeners.add(listener)
        try:
            yield listener
        finally:
            self._listeners.discard(listener)

    async def check(self) -> None:
        """Return where the file can be written now; raises BrokerUnavailable or NotReady otherwise."""
        file = self._opened()
        await self._in_thread(lambda: require_space(self._path))
        await self._in_thread(file.check)

    async def close(self) -> None:
        """Write what waits, and close the file; subscriptions that are still held are lost."""
        for subscription in self._subscriptions.values():
            subscription.lose("the broker was closed by this process")
        for listener in self._listeners:
            listener.close()
        if self._settling is not None:
            await self._settling
        await self._publications.close()
        file, self._file = self._file, None
        if file is not None:
            await self._in_thread(file.close)
        self._thread.shutdown()

    async def fetch(self, queue: str, after: int, limit: int, most: int) -> Fetched:
        """Read messages of a queue; how often each may have been handed out before is counted."""
        file = self._opened()
        before = self._handed_out[queue]
        found, next_weight = await self._in_thread(lambda: file.fetch(queue, after, limit, most, before))
        if found:
            self._handed_out[queue] = max(before, found[-1].tag)
        return Fetched(found, next_weight)

    def settle(self, tag: int) -> None:
        """Delete an acknowledged message with what is written next, or after a little while."""
        self._acknowledged.append(tag)
        if self._settling is None:
            self._settling = asyncio.create_task(self._settle_soon())

    async def settled(self) -> None:
        """Wait until the acknowledged messages so far are deleted, or cannot be."""
        try:
            await self._publications.submit(())
        except BrokerUnavailable as error:
            # They are tried again with the next write; and come again after a restart, as they may.
            if self._acknowledged:
                log.warning("broker.acks_waiting", count=len(self._acknowledged), reason=str(error))

    async def _settle_soon(self) -> None:
        try:
            await asyncio.sleep(ACKS_LINGER_S)
            if self._acknowledged:
                await self.settled()
        finally:
            self._settling = None

    async def _apply(self, publications: Sequence[Publication]) -> Sequence[None]:
        file = self._opened()
        done, self._acknowledged = self._acknowledged, []
        try:
            await self._in_thread(lambda: file.apply(publications, done))
        except BaseException:
            self._acknowledged = done + self._acknowledged
            raise
        for number, queue, envelope in chain.from_iterable(publications):
            subscription = self._subscriptions.get(queue)
            if subscription is not None and subscription.offer(number, envelope):
                self._handed_out[queue] = number
        return [None] * len(publications)

    async def _in_thread(self, call: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, call)

    def _opened(self) -> QueueFile:
        if self._file is None:
            raise BrokerUnavailable("The queues' file is not open: the broker was closed, or not started.")
        return self._file

    def _route(self, exchange: str, key: str) -> tuple[str, ...]:
        route = self._routes.get((exchange, key))
        if route is None:
            if len(self._routes) >= MOST_ROUTES:
                self._routes.clear()
            route = self._routes[exchange, key] = self._topology.route(exchange, key)
        return route


def _size(publication: Publication) -> int:
    return sum([len(envelope.body) for _, _, envelope in publication])
