"""What every process is made of: settings, the broker, the database, and how queues are served."""

import asyncio
import gc
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from broker.port import Broker, Subscription
from broker.private_files import writable_folder
from broker.registry.database import Database
from broker.registry.suspects import Suspects
from broker.settings import Settings
from broker.topology import Topology
from consumers.health import Health
from consumers.heartbeats import Alone, Heartbeats
from consumers.outage import outlast
from consumers.serving import Session, Stop, serve
from consumers.trials import Trials


@dataclass(frozen=True, slots=True)
class Base:
    """What every process has: settings, the broker, the database, and when to stop."""

    settings: Settings
    broker: Broker
    database: Database
    stop: Stop
    trials: Trials
    health: Health

    async def serve(self, queue: str, open_session: Callable[[Subscription], Session], stop: Stop) -> None:
        """Serve one queue until told to stop."""
        await serve(self.broker, queue, self.settings.prefetch, open_session, stop, self.trials, self.health)

    def roster(
        self, kind: str, on_channel: Callable[[str], None] = lambda channel: None
    ) -> Heartbeats | Alone:
        """Make what knows the other workers of a kind; with the embedded broker there are none."""
        if self.settings.embedded:
            return Alone(self.broker, on_channel)
        return Heartbeats(self.broker, kind, on_channel)


@asynccontextmanager
async def open_base(
    settings: Settings, stop: Stop, health: Health, *, spools: bool = True
) -> AsyncIterator[Base]:
    """Open the database and the broker; raises SchemaMismatch or TopologyMismatch before anything is served.

    Where stopping begins before they are open, ends at once. `spools` says whether the process takes in messages:
    their bodies need a folder to wait in where memory runs short.
    """
    async with AsyncExitStack() as stack:
        opening = asyncio.current_task()
        assert opening is not None

        async def give_up() -> None:
            await stop.wait()
            opening.cancel()

        waiting = asyncio.create_task(give_up())
        try:
            if spools and settings.spool_dir is not None:
                # Used only when memory runs short; that would be a bad moment to hear that it cannot be.
                writable_folder(settings.spool_dir, "POSTBOTE_SPOOL_DIR")
            base = await _opened(settings, stop, health, stack)
        finally:
            waiting.cancel()
        yield base


async def _opened(settings: Settings, stop: Stop, health: Health, stack: AsyncExitStack) -> Base:
    database = Database(settings.database)
    stack.push_async_callback(database.close)
    await outlast(database.check_schema, "start.database")
    broker = make_broker(settings)
    stack.push_async_callback(broker.close)
    await broker.start()
    return Base(settings, broker, database, stop, Trials(Suspects(database)), health)


def make_broker(settings: Settings) -> Broker:
    """Make the adapter that the settings ask for. Imported here, so that nobody waits for the one not used."""
    topology = Topology(settings.partitions)
    if settings.amqp_url is None:
        from broker.embedded.broker import EmbeddedBroker

        return EmbeddedBroker(settings.data_dir / "queues.db", topology, in_hand_bytes=settings.in_hand_bytes)
    from broker.rabbitmq.broker import RabbitBroker

    return RabbitBroker(
        settings.amqp_url.get_secret_value(),
        topology,
        settings.publish_timeout_s,
        in_hand_bytes=settings.in_hand_bytes,
        spool_folder=settings.spool_dir or settings.data_dir,
    )


def spare_the_collector() -> None:
    """Keep what has been imported and put together out of the garbage collector's sight; call it when all is."""
    gc.freeze()
