"""The delivery worker: takes bot responses, finds the webhooks registered for them, and delivers each, in order.

A response is acknowledged when every one of its deliveries is settled: delivered, kept as a dead letter, or
written into the backlog behind whatever else its lane has there.
"""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Protocol

import structlog
from pydantic import ValidationError

from broker.ids import delivery_id
from broker.models.records import BotResponse, now
from broker.partitions import conversation_key
from broker.port import Broker, Envelope, Subscription
from broker.registry.records import Channel, Delivery, Webhook
from broker.topology import matches
from consumers.attempt import Outcome
from consumers.dead_letters import bury
from consumers.delivery_log import DeliveryLog
from consumers.directory import Directory
from consumers.in_flight import InFlight
from consumers.lanes import HandedBack, Lane, Lanes
from consumers.outage import outlast
from consumers.parking import LaneKey, Parking
from consumers.rejection import why_invalid
from consumers.retry import Delivered, Disable, GiveUp, Schedule, TryAgain, decide
from consumers.serving import Stop
from consumers.waiting import Receipt, Waiting

log = structlog.get_logger()

#: How long what a failing webhook had too much of waits for its first attempt, in seconds.
CROWDING_WAIT_S = 1.0


class Posting(Protocol):
    """Makes attempts."""

    async def post(
        self, channel: Channel, webhook: Webhook, response: BotResponse, delivery_id: str, number: int
    ) -> Outcome:
        """Make one attempt; never raises for anything that the endpoint does."""
        ...


class SettledStore(Protocol):
    """Where dead deliveries are kept, and webhooks are disabled."""

    async def log(self, deliveries: Sequence[Delivery]) -> None:
        """Write what became of deliveries."""
        ...


@dataclass(frozen=True, slots=True)
class Delivering:
    """What all partitions of a delivery worker share."""

    broker: Broker
    directory: Directory
    poster: Posting
    parking: Parking
    store: SettledStore
    log: DeliveryLog
    disabling: "Disabling"
    in_flight: InFlight
    #: Messages of one webhook in the hands of one partition, above which a failing one waits in the backlog.
    most_held: int
    schedule: Schedule
    stop: Stop


class Disabling(Protocol):
    """Disables webhooks."""

    async def disable(self, webhook: Webhook, reason: str) -> None:
        """Disable a webhook, saying why."""
        ...


class DeliverySession:
    """Delivers the responses of one partition, one lane for each webhook and conversation."""

    def __init__(self, subscription: Subscription, shared: Delivering, partition: int) -> None:
        self.failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._subscription = subscription
        self._shared = shared
        self._partition = partition
        self._parked: set[LaneKey] | None = None
        self._lanes: Lanes[LaneKey, Waiting] = Lanes(self._work, self._fail)
        self._held: Counter[str] = Counter()
        #: Webhooks whose last attempt here failed.
        self._failing: set[str] = set()

    async def take(self, envelopes: Sequence[Envelope]) -> None:
        """Find the webhooks of each response and put its deliveries into their lanes."""
        if self._parked is None:
            # Only now: the first message proves that nobody else holds the queue, so that what an earlier holder
            # wrote into the backlog before it acknowledged is there to be read.
            self._parked = await self._shared.parking.lanes_of(self._partition)
        for envelope in envelopes:
            try:
                response = BotResponse.model_validate_json(envelope.body)
            except ValidationError as error:
                await self._bury(envelope, "not a bot response of a known version", why_invalid(error))
                continue
            await self._fan_out(envelope, response)

    async def stop(self, grace_s: float) -> None:
        """Let the attempts in flight end; what waits for another attempt is handed back."""
        await self._lanes.stop(grace_s)

    async def _fan_out(self, envelope: Envelope, response: BotResponse) -> None:
        channel_id = response.channel_id
        found = await self._shared.directory.of_channel(channel_id, response.channel_revision)
        if found is None:
            await self._bury(envelope, "unknown channel", f"the channel {channel_id} is deleted")
            return
        wanted = [webhook for webhook in found.webhooks if wants(webhook, response.kind)]
        if not wanted:
            self._subscription.ack(envelope)
            return
        receipt = Receipt(self._subscription, envelope, len(wanted))
        conversation = conversation_key(channel_id, response.user_id)
        for webhook in wanted:
            waiting = Waiting(delivery_id(response.id, webhook.id), webhook.id, response, receipt)
            self._held[webhook.id] += 1
            self._lanes.put((webhook.id, conversation), waiting)

    async def _work(self, lane: Lane[LaneKey, Waiting]) -> None:
        parked = self._parked if self._parked is not None else set()
        if lane.key in parked:
            if await self._append(lane):
                return
            parked.discard(lane.key)
        await self._deliver(lane)

    async def _deliver(self, lane: Lane[LaneKey, Waiting]) -> None:
        shared, head = self._shared, lane.items[0]
        while True:
            found = await shared.directory.of_channel(head.response.channel_id)
            webhook = next((w for w in found.webhooks if w.id == head.webhook_id), None) if found else None
            if found is None or webhook is None:
                await self._give_up(lane, head, "the webhook was deleted")
                return
            if not webhook.enabled:
                await self._park(lane, 0.0)
                return
            async with shared.in_flight.place(webhook.id):
                # Looked at only now: while it waited for the place, others may have found out that it fails.
                crowding = self._crowding(webhook.id)
                if not crowding:
                    outcome = await shared.poster.post(
                        found.channel, webhook, head.response, head.id, len(head.attempts) + 1
                    )
            if crowding:
                await self._park(lane, CROWDING_WAIT_S)
                return
            head.attempts.append(outcome.attempt)
            decision = decide(
                shared.schedule,
                outcome.answer,
                attempts=len(head.attempts),
                in_memory_s=time.monotonic() - head.since,
                chance=random.random(),  # noqa: S311 - spreads load, keeps no secret
            )
            if isinstance(decision, Delivered):
                self._failing.discard(webhook.id)
            else:
                self._failing.add(webhook.id)
            match decision:
                case Delivered():
                    shared.log.add(head.delivery("delivered"))
                    self._settled(lane, 1)
                    return
                case GiveUp(reason):
                    await self._give_up(lane, head, reason)
                    return
                case Disable(reason):
                    await shared.disabling.disable(webhook, reason)
                    await self._park(lane, 0.0)
                    return
                case TryAgain(wait_s, place) if place == "backlog" or self._crowding(webhook.id):
                    await self._park(lane, wait_s)
                    return
                case TryAgain(wait_s, _):
                    if await shared.stop.sleep(wait_s):
                        raise HandedBack

    async def _give_up(self, lane: Lane[LaneKey, Waiting], head: Waiting, reason: str) -> None:
        log.warning("delivery.dead", delivery=head.id, webhook=head.webhook_id, reason=reason)
        dead = head.delivery("dead", reason)
        await outlast(lambda: self._shared.store.log([dead]), "delivery.logging")
        self._settled(lane, 1)

    async def _park(self, lane: Lane[LaneKey, Waiting], wait_s: float) -> None:
        """Put the lane into the backlog: the head, and all that wait behind it at this moment."""
        waiting = list(lane.items)
        log.info("lane.parked", webhook=lane.key[0], conversation=lane.key[1], messages=len(waiting))
        await self._shared.parking.park(
            self._partition,
            [item.delivery("pending") for item in waiting],
            now() + timedelta(seconds=wait_s),
        )
        if self._parked is not None:
            self._parked.add(lane.key)
        self._settled(lane, len(waiting))

    async def _append(self, lane: Lane[LaneKey, Waiting]) -> bool:
        waiting = list(lane.items)
        if not await self._shared.parking.append([item.delivery("pending") for item in waiting]):
            return False
        self._settled(lane, len(waiting))
        return True

    def _settled(self, lane: Lane[LaneKey, Waiting], count: int) -> None:
        webhook_id = lane.key[0]
        self._held[webhook_id] -= count
        if not self._held[webhook_id]:
            del self._held[webhook_id]
        for _ in range(count):
            lane.items.popleft().receipt.settled()

    def _crowding(self, webhook_id: str) -> bool:
        """Tell whether a webhook fails and holds so much of the prefetch that the others' messages wait for it."""
        return webhook_id in self._failing and self._held[webhook_id] > self._shared.most_held

    async def _bury(self, envelope: Envelope, reason: str, detail: str) -> None:
        log.warning("message.dead", stage="delivery", message=envelope.id, reason=reason)
        await bury(self._shared.broker, envelope, stage="delivery", reason=reason, detail=detail)
        self._subscription.ack(envelope)

    def _fail(self, key: LaneKey, error: BaseException) -> None:
        if not self.failed.done():
            self.failed.set_exception(error)


def wants(webhook: Webhook, kind: str) -> bool:
    """Tell whether a webhook's filter lets responses of this kind through."""
    event = f"response.{kind}"
    return any(pattern == "response.#" or matches(pattern, event) for pattern in webhook.events)
