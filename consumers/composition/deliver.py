"""The delivery worker with the drainer of the backlog, put together and run."""

import asyncio
from contextlib import AsyncExitStack
from datetime import timedelta

from broker.partitions import partition_word
from broker.port import Subscription
from broker.registry.backlog import Backlog
from broker.registry.deliveries import Deliveries
from broker.registry.expiry import Expiry
from broker.registry.webhooks import Webhooks
from broker.room import share_of
from broker.settings import Network
from broker.topology import outbound_queue
from consumers.attempt import Poster
from consumers.backlog import Drainer
from consumers.busyness import Busyness
from consumers.composition.base import Base
from consumers.delivering import Deliverer
from consumers.delivery_log import DeliveryLog
from consumers.delivery_worker import Delivering, DeliverySession
from consumers.directory import Directory
from consumers.disabling import WebhookDisabling
from consumers.expiring import Sweeper, WebhookSweeper
from consumers.gates import Gates
from consumers.parking import Parking
from consumers.retry import Policy, Schedule
from consumers.serving import Session, Stop
from consumers.sharing import Sharing
from consumers.standing import Standing
from consumers.working_clock import WorkingClock

#: How long what is left of the delivery log may take to be written at the end, in seconds.
LOG_FLUSH_S = 1.5


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
        workers = base.roster("deliver", directory.forget)
        clock = WorkingClock()
        busyness = Busyness()
        gates = Gates(
            most=settings.max_in_flight,
            most_each=settings.max_in_flight_per_webhook,
            most_each_origin=settings.max_in_flight_per_origin,
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
            busyness=busyness,
            prefetch=settings.prefetch,
            bytes_each=share_of(settings.in_hand_bytes, settings.partitions) // settings.prefetch,
        )

        async def serve_one(partition: int, stop: Stop) -> None:
            def open_session(subscription: Subscription) -> Session:
                return DeliverySession(subscription, shared, partition)

            await base.serve(outbound_queue(partition_word(partition)), open_session, stop)

        async with asyncio.TaskGroup() as group:
            group.create_task(clock.run(base.stop))
            group.create_task(busyness.run(base.stop))
            group.create_task(delivery_log.run(base.stop))
            group.create_task(standing.run(base.stop))
            group.create_task(Sweeper(Expiry(base.database), policy).run(base.stop))
            group.create_task(WebhookSweeper(webhooks).run(base.stop))
            group.create_task(Drainer(parking, deliverer, gates, base.stop).run())
            group.create_task(workers.run(base.stop))
            group.create_task(Sharing(workers, settings.partitions, serve_one, base.stop).run())
