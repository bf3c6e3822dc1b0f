"""A delivery worker on a real registry, on each database in turn."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from delivery_worker_parts import QUICK, AckedQueue, Endpoint, Graveyard, Worker

from broker.registry.backlog import Backlog
from broker.registry.channels import Channels
from broker.registry.database import Database
from broker.registry.deliveries import Deliveries
from broker.registry.webhooks import Webhooks
from consumers.delivery_log import DeliveryLog
from consumers.delivery_worker import Delivering
from consumers.directory import Directory
from consumers.disabling import WebhookDisabling
from consumers.in_flight import InFlight
from consumers.parking import Parking
from consumers.serving import Stop


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
    shared = Delivering(
        broker=graveyard,  # type: ignore[arg-type]
        directory=directory,
        poster=endpoint,
        parking=Parking(backlog),
        store=deliveries,
        log=log,
        disabling=WebhookDisabling(webhooks, directory),
        in_flight=InFlight(64, 16),
        most_held=50,
        schedule=QUICK,
        stop=stop,
    )
    logging = asyncio.create_task(log.run(stop))
    yield Worker(shared, backlog, deliveries, channels, webhooks, endpoint, AckedQueue(), graveyard, channel)
    stop.set()
    await logging
    await log.flush(2)
    await directory.close()
    await database.close()
