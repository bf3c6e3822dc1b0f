"""A delivery worker on a real registry, on each database in turn."""

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import timedelta

import pytest
import uvloop
from delivery_worker_parts import QUICK, AckedQueue, Endpoint, Graveyard, Worker
from talking_server import OurSide, Serving, serve

from broker.registry.backlog import Backlog
from broker.registry.channels import Channels
from broker.registry.database import Database
from broker.registry.deliveries import Deliveries
from broker.registry.webhooks import Webhooks
from consumers.breaker import Tuning
from consumers.busyness import Busyness
from consumers.delivering import Deliverer
from consumers.delivery_log import DeliveryLog
from consumers.delivery_worker import Delivering
from consumers.directory import Directory
from consumers.disabling import WebhookDisabling
from consumers.gates import Gates
from consumers.parking import Parking
from consumers.retry import Policy
from consumers.serving import Stop
from consumers.standing import Standing
from consumers.working_clock import WorkingClock

#: What is near to the sockets runs on the loop of production too: its transports are made otherwise.
ON_BOTH_LOOPS = ("test_answers.py", "test_attempt.py", "test_connections.py")


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Name the event loops that a test runs on."""
    loops: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {"asyncio": asyncio.new_event_loop}
    return loops | {"uvloop": uvloop.new_event_loop} if item.path.name in ON_BOTH_LOOPS else loops


@pytest.fixture
async def worker(database_url: str) -> AsyncIterator[Worker]:
    """Provide a delivery worker's parts on each database in turn."""
    database = Database(database_url)
    channels, webhooks, deliveries = Channels(database), Webhooks(database), Deliveries(database)
    backlog = Backlog(database)
    directory, endpoint, graveyard = Directory(webhooks), Endpoint(), Graveyard()
    channel, _ = await channels.create("test", {"type": "echo"})
    stop = Stop(2.0)
    log = DeliveryLog(deliveries)
    disabling = WebhookDisabling(webhooks, directory)
    # A pause of this machine is no endpoint's fault.
    clock = WorkingClock()
    gates = Gates(most=64, most_each=16, tuning=Tuning(open_s=0.05, longest_open_s=0.2), clock=clock)
    standing = Standing(webhooks, backlog, disabling, directory, timedelta(days=5))
    busyness = Busyness()
    shared = Delivering(
        broker=graveyard,  # type: ignore[arg-type]
        directory=directory,
        deliverer=Deliverer(directory, endpoint, gates, disabling, standing, Policy(QUICK, 3600.0)),
        parking=Parking(backlog),
        store=deliveries,
        log=log,
        gates=gates,
        busyness=busyness,
        prefetch=200,
        bytes_each=20_000,
    )
    running = [asyncio.create_task(task(stop)) for task in (log.run, standing.run, clock.run, busyness.run)]
    yield Worker(
        shared,
        backlog,
        deliveries,
        channels,
        webhooks,
        endpoint,
        AckedQueue(),
        graveyard,
        channel,
        gates,
        standing,
        stop,
    )
    stop.set()
    await asyncio.gather(*running)
    await log.flush(2)
    await shared.parking.close()
    await directory.close()
    await database.close()


@pytest.fixture
async def our_side(monkeypatch: pytest.MonkeyPatch) -> OurSide:
    """Watch our side of the connections to endpoints."""
    return OurSide(monkeypatch)


@pytest.fixture
def serving(our_side: OurSide) -> Serving:
    """Serve each connection by one of the talks, in order."""
    return lambda *talks: serve(our_side, *talks)
