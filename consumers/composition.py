"""The one place where the parts of a process are put together, opened in order and closed in reverse."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from uuid import uuid4

import structlog
from aiohttp import web

from broker.api.app import Parts, make_app
from broker.errors import SettingsError
from broker.partitions import partition_word
from broker.port import Broker, Subscription
from broker.registry.backlog import Backlog
from broker.registry.channels import Channels
from broker.registry.conversations import Conversations
from broker.registry.database import Database
from broker.registry.dead_letters import DeadLetters
from broker.registry.deliveries import Deliveries
from broker.registry.expiry import Expiry
from broker.registry.history import History
from broker.registry.idempotency import IdempotencyKeys
from broker.registry.records import Attempt, Channel, Webhook
from broker.registry.redrive import Redrive
from broker.registry.suspects import Suspects
from broker.registry.webhooks import Webhooks
from broker.settings import Network, Settings
from broker.topology import DEAD, MESSAGES, Topology, inbound_queue, outbound_queue
from consumers.attempt import Poster, ping
from consumers.backlog import Drainer
from consumers.bot_worker import Bots, BotSession
from consumers.bots.catalogue import BOT_TYPES, make_bot
from consumers.dead_letters import DeadLetterSession
from consumers.delivering import Deliverer
from consumers.delivery_log import DeliveryLog
from consumers.delivery_worker import Delivering, DeliverySession
from consumers.directory import Directory
from consumers.disabling import WebhookDisabling
from consumers.expiring import Sweeper
from consumers.gates import Gates
from consumers.heartbeats import Alone, Heartbeats
from consumers.intake import IntakeSession
from consumers.outage import outlast
from consumers.parking import Parking
from consumers.retry import Policy, Schedule
from consumers.serving import Session, Stop, serve
from consumers.sharing import Sharing
from consumers.standing import Standing
from consumers.trials import Trials
from consumers.turn_writing import Turns
from consumers.working_clock import WorkingClock

log = structlog.get_logger()

#: How long what is left of the delivery log may take to be written at the end, in seconds.
LOG_FLUSH_S = 1.5


@dataclass(frozen=True, slots=True)
class Base:
    """What every process has: settings, the broker, the database, and when to stop."""

    settings: Settings
    broker: Broker
    database: Database
    stop: Stop
    trials: Trials


@asynccontextmanager
async def open_base(settings: Settings, stop: Stop) -> AsyncIterator[Base]:
    """Open the database and the broker; raises SchemaMismatch or TopologyMismatch before anything is served."""
    async with AsyncExitStack() as stack:
        database = Database(settings.database)
        stack.push_async_callback(database.close)
        await outlast(database.check_schema, "start.database")
        broker = make_broker(settings)
        stack.push_async_callback(broker.close)
        await broker.start()
        yield Base(settings, broker, database, stop, Trials(Suspects(database)))


def make_broker(settings: Settings) -> Broker:
    """Make the adapter that the settings ask for. Imported here, so that nobody waits for the one not used."""
    topology = Topology(settings.partitions)
    if settings.amqp_url is None:
        from broker.embedded.broker import EmbeddedBroker

        return EmbeddedBroker(settings.data_dir / "queues.db", topology)
    from broker.rabbitmq.broker import RabbitBroker

    return RabbitBroker(settings.amqp_url.get_secret_value(), topology, settings.publish_timeout_s)


@asynccontextmanager
async def serving_api(base: Base, admin_token: str, allowed: tuple[Network, ...]) -> AsyncIterator[str]:
    """Serve the HTTP API; yields its address. Leaving lets the requests under way end first."""
    settings = base.settings
    async with AsyncExitStack() as stack:
        poster = Poster(timeout_s=settings.webhook_timeout_s, allowed=allowed)
        stack.push_async_callback(poster.close)
        app = make_app(
            Parts(
                settings=settings,
                admin_token=admin_token,
                broker=base.broker,
                database=base.database,
                channels=Channels(base.database),
                webhooks=Webhooks(base.database),
                history=History(base.database),
                deliveries=Deliveries(base.database),
                dead_letters=DeadLetters(base.database),
                idempotency_keys=IdempotencyKeys(base.database),
                redrive=Redrive(base.database, settings.partitions),
                ping=partial(send_ping, poster),
                bot_types=BOT_TYPES,
                allowed=allowed,
            )
        )
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=min(5.0, settings.shutdown_grace_s))
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        site = web.TCPSite(runner, settings.host, settings.port)
        try:
            await site.start()
        except OSError as error:
            raise SettingsError(
                f"The API cannot listen on {settings.host}, port {settings.port} ({error.strerror}): set "
                "POSTBOTE_HOST and POSTBOTE_PORT to an address of this machine and a port that is free."
            ) from None
        host, port = runner.addresses[0][:2]
        yield f"http://{f'[{host}]' if ':' in host else host}:{port}"


async def send_ping(poster: Poster, channel: Channel, webhook: Webhook) -> Attempt:
    """Make one attempt to deliver a ping, now, past all queues."""
    response = ping(channel)
    # An id of its own each time: a receiver that drops repeats would drop the second ping.
    outcome = await poster.post(channel, webhook, response, str(uuid4()), 1)
    return outcome.attempt


async def work_bot(base: Base) -> None:
    """Run the intake, the bot worker and the collector of dead letters until told to stop."""
    settings = base.settings
    turns = Turns(Conversations(base.database))
    bots = Bots(make_bot, settings.bot_timeout_s)
    letters = DeadLetters(base.database)

    def intake(subscription: Subscription) -> Session:
        return IntakeSession(subscription, base.broker, settings.partitions)

    def dead_letters(subscription: Subscription) -> Session:
        return DeadLetterSession(subscription, letters)

    def answering(subscription: Subscription) -> Session:
        return BotSession(subscription, base.broker, turns, bots, settings.partitions)

    workers = roster_of(base, "bot")

    async def serve_one(partition: int, stop: Stop) -> None:
        await _serve(base, inbound_queue(partition_word(partition)), answering, stop)

    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(workers.run(base.stop))
            # Any bot worker does these, the others stand by: the broker gives them to one.
            group.create_task(_serve(base, MESSAGES, intake, base.stop))
            group.create_task(_serve(base, DEAD, dead_letters, base.stop))
            group.create_task(Sharing(workers, settings.partitions, serve_one, base.stop).run())
    finally:
        await turns.close()


async def work_deliver(base: Base, allowed: tuple[Network, ...]) -> None:
    """Run the delivery worker and the drainer of the backlog until told to stop."""
    settings = base.settings
    backlog = Backlog(base.database)
    deliveries = Deliveries(base.database)
    webhooks = Webhooks(base.database)
    async with AsyncExitStack() as stack:
        directory = Directory(webhooks)
        stack.push_async_callback(directory.close)
        poster = Poster(timeout_s=settings.webhook_timeout_s, allowed=allowed)
        stack.push_async_callback(poster.close)
        delivery_log = DeliveryLog(deliveries)
        stack.push_async_callback(delivery_log.flush, LOG_FLUSH_S)
        workers = roster_of(base, "deliver", directory.forget)
        clock = WorkingClock()
        gates = Gates(
            most=settings.max_in_flight,
            most_each=settings.max_in_flight_per_webhook,
            workers=lambda: workers.number,
            clock=clock,
        )
        disabling = WebhookDisabling(webhooks, directory)
        standing = Standing(
            webhooks, backlog, disabling, directory, timedelta(seconds=settings.disable_after_s)
        )
        policy = Policy(Schedule(), settings.time_to_live_s)
        parking = Parking(backlog)
        stack.push_async_callback(parking.close)
        deliverer = Deliverer(directory, poster, gates, disabling, standing, policy)
        shared = Delivering(
            broker=base.broker,
            directory=directory,
            deliverer=deliverer,
            parking=parking,
            store=deliveries,
            log=delivery_log,
            gates=gates,
            most_held=settings.prefetch // 4,
        )

        async def serve_one(partition: int, stop: Stop) -> None:
            def open_session(subscription: Subscription) -> Session:
                return DeliverySession(subscription, shared, partition)

            await _serve(base, outbound_queue(partition_word(partition)), open_session, stop)

        async with asyncio.TaskGroup() as group:
            group.create_task(clock.run(base.stop))
            group.create_task(delivery_log.run(base.stop))
            group.create_task(standing.run(base.stop))
            group.create_task(Sweeper(Expiry(base.database), policy).run(base.stop))
            group.create_task(Drainer(parking, deliverer, gates, base.stop).run())
            group.create_task(workers.run(base.stop))
            group.create_task(Sharing(workers, settings.partitions, serve_one, base.stop).run())


def roster_of(
    base: Base, kind: str, on_channel: Callable[[str], None] = lambda channel: None
) -> Heartbeats | Alone:
    """Make what knows the other workers of a kind; with the embedded broker there are none."""
    return Alone() if base.settings.embedded else Heartbeats(base.broker, kind, on_channel)


async def _serve(base: Base, queue: str, open_session: Callable[[Subscription], Session], stop: Stop) -> None:
    await serve(base.broker, queue, base.settings.prefetch, open_session, stop, base.trials)
