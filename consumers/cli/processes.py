"""The processes of Postbote: what `postbote run`, `api`, `bot`, `deliver` and `migrate` start.

Each imports what it is made of where it needs it: a process starts sooner, and holds less, without the others' parts.
"""

import asyncio
import os
import signal
import sys
from collections.abc import Callable, Coroutine
from typing import Any

import structlog

from broker.ending import run as run_to_its_end
from broker.errors import SettingsError
from broker.port import Broker
from broker.server_urls import shown
from broker.settings import Settings, read_settings, set_by_kubernetes
from consumers.composition.base import make_broker, open_base, spare_the_collector
from consumers.credentials import admin_token
from consumers.health import Health, beat
from consumers.logs import configure_logs, in_background
from consumers.serving import Stop

log = structlog.get_logger()

Process = Callable[[Settings, Stop, Health], Coroutine[Any, Any, None]]

#: Sockets and files that one process may have open.
MOST_FILES = 65_536
#: For closing connections and files, after the grace of what was in flight.
LAST_SECONDS = 1.8


def run() -> None:
    """Everything in one process: embedded where no servers are set."""
    _run(_whole, read_settings())


def api() -> None:
    """The HTTP API alone."""
    _run(_api, _with_servers("api"))


def bot() -> None:
    """A bot worker, with the intake."""
    _run(_bot, _with_servers("bot"))


def deliver() -> None:
    """A delivery worker."""
    _run(_deliver, _with_servers("deliver"))


def migrate() -> None:
    """Bring the database to this version's schema, and declare the queues where a broker is set."""
    settings = read_settings()
    _begin_to_log(settings)
    run_to_its_end(_migrate(settings))


async def _migrate(settings: Settings) -> None:
    from broker.registry.migration import migrate as migrate_database

    await migrate_database(settings.database)
    log.info("database.migrated", database=shown(settings.database))
    if settings.amqp_url is not None:
        # So that the other processes need no right to declare anything.
        broker = make_broker(settings)
        try:
            # Whoever runs it is there to mend what the broker refuses.
            await broker.start(patient=False)
            await _tell_what_is_missing(broker)
        finally:
            await broker.close()
        log.info("broker.declared", partitions=settings.partitions)


async def _tell_what_is_missing(broker: Broker) -> None:
    from broker.rabbitmq.broker import RabbitBroker

    if isinstance(broker, RabbitBroker) and (queues := await broker.without_dead_letters()):
        log.warning(
            "broker.no_dead_letter_exchange",
            queues=queues,
            why="they were made without it: what expires there or comes back too often is lost, unless a policy "
            "names postbote.dead (deploy/rabbitmq/definitions.json has one); or stop all, let them run empty, "
            "delete them, and run `postbote migrate`",
        )


def _with_servers(command: str) -> Settings:
    settings = read_settings()
    missing = [
        name
        for name, there in (
            ("POSTBOTE_AMQP_URL", settings.amqp_url),
            ("POSTBOTE_DATABASE_URL", settings.database_url),
        )
        if there is None
    ]
    if missing or settings.sqlite:
        raise SettingsError(
            f"`postbote {command}` shares its queues and its database with other processes: set "
            f"{' and '.join(missing) or 'POSTBOTE_DATABASE_URL to a postgresql:// address'}. "
            "For everything in one process without servers, use `postbote run`."
        )
    return settings


def _run(process: Process, settings: Settings) -> None:
    _begin_to_log(settings)
    _raise_file_limit()
    loop_factory = None
    if sys.platform != "win32":
        from consumers.loop import Loop

        loop_factory = Loop
    run_to_its_end(_until_signalled(process, settings), loop_factory)


def _begin_to_log(settings: Settings) -> None:
    configure_logs(settings)
    if set_by_kubernetes(os.environ.get("POSTBOTE_PORT")):
        log.warning(
            "settings.port_of_kubernetes",
            port=settings.port,
            why="POSTBOTE_PORT is what Kubernetes sets for a Service named postbote, and no port: set "
            "enableServiceLinks: false, or POSTBOTE_PORT to a number",
        )


def _raise_file_limit() -> None:
    # Endpoints that hang cost a socket each; the soft limit is often 1024, for programs that use select().
    if sys.platform != "win32":
        import resource

        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        wanted = MOST_FILES if hard == resource.RLIM_INFINITY else min(hard, MOST_FILES)
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


async def _until_signalled(process: Process, settings: Settings) -> None:
    stop = Stop(settings.shutdown_grace_s)
    health = Health()
    beating = asyncio.create_task(beat(health))
    task = asyncio.create_task(process(settings, stop, health))
    loop = asyncio.get_running_loop()

    def stop_now() -> None:
        if stop.is_set():
            log.warning("process.stopped_at_once", why="asked twice")
            task.cancel()
            return
        log.info("process.stopping", grace_s=settings.shutdown_grace_s)
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop_now)
    stopping = asyncio.create_task(stop.wait())
    try:
        # A start that still waits for the broker has nothing to finish, and ends when it is asked to.
        await asyncio.wait({task, stopping}, return_when=asyncio.FIRST_COMPLETED)
        await asyncio.wait({task}, timeout=settings.shutdown_grace_s + LAST_SECONDS)
        if not task.done() and stop.is_set():
            log.warning("process.stopped_at_once", why="the grace is over")
            task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    finally:
        stopping.cancel()
        beating.cancel()
        await asyncio.gather(stopping, beating, return_exceptions=True)
    if not task.cancelled() and (error := task.exception()) is not None:
        while isinstance(error, ExceptionGroup):
            error = error.exceptions[0]
        raise error
    log.info("process.stopped")


async def _whole(settings: Settings, stop: Stop, health: Health) -> None:
    from consumers.composition.whole import work

    # The welcome and the demo receiver print: a terminal that stands still, or is gone, holds up nothing else.
    sys.stdout = in_background(
        sys.stdout, lambda lines, why: f"({lines} messages could not be shown: {why})\n"
    )
    await work(settings, stop, health)


async def _api(settings: Settings, stop: Stop, health: Health) -> None:
    from consumers.composition.api import serving_api

    async with (
        open_base(settings, stop, health, spools=False) as base,
        serving_api(base, admin_token(settings), settings.webhook_allow_networks) as address,
    ):
        log.info("api.listening", address=address)
        spare_the_collector()
        await stop.wait()


async def _bot(settings: Settings, stop: Stop, health: Health) -> None:
    from consumers.composition.bot import work_bot

    async with open_base(settings, stop, health) as base:
        log.info("bot.working", partitions=settings.partitions)
        spare_the_collector()
        await work_bot(base)


async def _deliver(settings: Settings, stop: Stop, health: Health) -> None:
    from consumers.composition.deliver import work_deliver

    async with open_base(settings, stop, health) as base:
        log.info("deliver.working", partitions=settings.partitions)
        spare_the_collector()
        await work_deliver(base, settings.webhook_allow_networks)
