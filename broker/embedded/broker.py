"""The embedded broker: the queues of one process, in a file. No server needed.

Publishes and acknowledgements that come while a transaction is being written make up the next one together,
so that one wait for the disk serves many.
"""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar

from broker.batching import Batcher
from broker.embedded.announcements import EmbeddedAnnouncements
from broker.embedded.store import Change, QueueFile
from broker.embedded.subscription import EmbeddedSubscription
from broker.errors import BrokerUnavailable
from broker.port import Announcements, Envelope, Subscription
from broker.topology import Topology

T = TypeVar("T")

#: Publishes that may wait for the file at a time; whoever publishes more waits.
MOST_WAITING = 4096
#: Publishes and acknowledgements in one transaction.
BATCH = 1024
#: Routes remembered; keys hold channel ids, so there may be many.
MOST_ROUTES = 10_000


class EmbeddedBroker:
    """The broker port on one SQLite file, for one process."""

    def __init__(self, path: Path, topology: Topology) -> None:
        self._path = path
        self._topology = topology
        self._routes: dict[tuple[str, str], tuple[str, ...]] = {}
        # One thread of its own: SQLite blocks, and what one thread does needs no locks.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="queues")
        self._file: QueueFile | None = None
        self._changes: Batcher[Change, None] = Batcher(self._apply, BATCH)
        self._room = asyncio.Semaphore(MOST_WAITING)
        self._number = 0
        #: Numbers up to this may have been handed out before, by this process or the one before it.
        self._handed_out: dict[str, int] = defaultdict(int)
        self._subscriptions: dict[str, EmbeddedSubscription] = {}
        self._holds: dict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._listeners: set[EmbeddedAnnouncements] = set()

    async def start(self) -> None:
        """Open the file. Raises BrokerError where another process has it, or TopologyMismatch."""
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
            await self._changes.submit(Change(added=added))

    @asynccontextmanager
    async def subscribe(self, queue: str, prefetch: int) -> AsyncIterator[Subscription]:
        """Hold a queue; another subscriber of it waits until the hold is given up."""
        async with self._holds[queue]:
            subscription = EmbeddedSubscription(self, queue, prefetch)
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
        """Return where the file can be written now; raises BrokerUnavailable otherwise."""
        await self._in_thread(self._opened().check)

    async def close(self) -> None:
        """Write what waits, and close the file; subscriptions that are still held are lost."""
        for subscription in self._subscriptions.values():
            await subscription.flush()
            subscription.lose("the broker was closed by this process")
        for listener in self._listeners:
            listener.close()
        await self._changes.close()
        file, self._file = self._file, None
        if file is not None:
            await self._in_thread(file.close)
        self._thread.shutdown()

    async def fetch(self, queue: str, after: int, limit: int) -> list[Envelope]:
        """Read messages of a queue; how often each may have been handed out before is counted."""
        file = self._opened()
        before = self._handed_out[queue]
        found = await self._in_thread(lambda: file.fetch(queue, after, limit, before))
        if found:
            self._handed_out[queue] = max(before, found[-1].tag)
        return found

    async def settle(self, tags: Sequence[int]) -> None:
        """Delete acknowledged messages; raises BrokerUnavailable where that cannot be written."""
        await self._changes.submit(Change(done=tags))

    async def _apply(self, changes: Sequence[Change]) -> Sequence[None]:
        file = self._opened()
        results = await self._in_thread(lambda: file.apply(changes))
        for change in changes:
            for number, queue, envelope in change.added:
                subscription = self._subscriptions.get(queue)
                if subscription is not None and subscription.offer(number, envelope):
                    self._handed_out[queue] = number
        return results

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
