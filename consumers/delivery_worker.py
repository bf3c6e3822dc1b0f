"""The delivery worker: takes bot responses, finds the webhooks registered for them, and delivers each, in order.

A response is acknowledged when every one of its deliveries is settled: delivered, kept as a dead letter, or
written into the backlog behind whatever else its lane has there.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Protocol

import structlog
from pydantic import ValidationError

from broker.ids import delivery_id
from broker.models.records import BotResponse, now
from broker.partitions import conversation_key
from broker.port import Broker, Envelope, Subscription
from broker.registry.backlog import LaneToPark
from broker.registry.lane_statements import LaneKey
from broker.registry.records import Delivery, Webhook
from broker.room import LIGHT, weight
from broker.topology import matches
from consumers.busyness import Busyness
from consumers.dead_letters import bury
from consumers.delivering import Deliverer
from consumers.delivery_log import DeliveryLog
from consumers.directory import Directory
from consumers.gates import Gate, Gates
from consumers.job import Later, Settled
from consumers.lanes import Lane, Lanes
from consumers.outage import outlast
from consumers.parking import Parked, Parking
from consumers.rejection import why_invalid
from consumers.shares import PATIENCE_S, Shares
from consumers.waiting import Receipt, Waiting

log = structlog.get_logger()


#: Deliveries of one response that are put into their lanes before others have their turn.
A_PIECE = 500
#: Responses of a partition remembered, to tell a second copy: publishes are repeated within seconds.
TAKEN_REMEMBERED = 2000


class SettledStore(Protocol):
    """Where dead deliveries are kept."""

    async def log(self, deliveries: Sequence[Delivery]) -> None:
        """Write what became of deliveries."""
        ...


@dataclass(frozen=True, slots=True)
class Delivering:
    """What all partitions of a delivery worker share."""

    broker: Broker
    directory: Directory
    deliverer: Deliverer
    parking: Parking
    store: SettledStore
    log: DeliveryLog
    gates: Gates
    busyness: Busyness
    #: Messages that one partition may have in hand.
    prefetch: int
    #: A heavier message takes several places of the prefetch, one for each so many bytes of its weight in memory.
    bytes_each: int


class DeliverySession:
    """Delivers the responses of one partition, one lane for each webhook and conversation."""

    def __init__(self, subscription: Subscription, shared: Delivering, partition: int) -> None:
        self.failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._subscription = subscription
        self._shared = shared
        self._partition = partition
        self._parked: Parked | None = None
        self._lanes: Lanes[LaneKey, Waiting] = Lanes(self._work, self._fail)
        #: Responses whose channel has to be looked up first, by channel: no other channel waits for that.
        self._meeting: Lanes[str, tuple[Envelope, BotResponse]] = Lanes(self._meet, self._fail)
        #: What is in hand, by webhook.
        self._shares = Shares(shared.prefetch)
        #: The responses that were taken in last, by id.
        self._taken: OrderedDict[str, None] = OrderedDict()

    async def take(self, envelopes: Sequence[Envelope]) -> None:
        """Find the webhooks of each response and put its deliveries into their lanes."""
        if self._parked is None:
            # Only now: the first message proves that nobody else holds the queue, so that what an earlier holder
            # wrote into the backlog before it acknowledged is there to be read.
            self._parked = Parked(await self._shared.parking.webhooks_of(self._partition))
        taken: list[tuple[Envelope, BotResponse]] = []
        for envelope in envelopes:
            try:
                taken.append((envelope, BotResponse.model_validate_json(envelope.body)))
            except ValidationError as error:
                await self._bury(envelope, "not a bot response of a known version", why_invalid(error))
        directory = self._shared.directory
        # Not even a task for what needs no waiting.
        for envelope, response in taken:
            channel_id = response.channel_id
            found = directory.known(channel_id, response.channel_revision)
            if found is None or channel_id in self._meeting:
                self._meeting.put(channel_id, (envelope, response))
            else:
                for _ in self._fan_out(envelope, response, found.webhooks):
                    await asyncio.sleep(0)

    async def stop(self, grace_s: float) -> None:
        """Let the attempts in flight end; what waits for another attempt is handed back."""
        await self._meeting.stop(0)
        await self._lanes.stop(grace_s)

    async def _meet(self, lane: Lane[str, tuple[Envelope, BotResponse]]) -> None:
        """Look up a channel once for all of its responses that wait for it."""
        waiting = list(lane.items)
        newest = max(response.channel_revision for _, response in waiting)
        found = await self._shared.directory.of_channel(lane.key, newest)
        for envelope, response in waiting:
            if found is not None:
                for _ in self._fan_out(envelope, response, found.webhooks):
                    await asyncio.sleep(0)
            else:
                await self._bury(envelope, "unknown channel", f"the channel {lane.key} is deleted")
            lane.items.popleft()

    def _fan_out(
        self, envelope: Envelope, response: BotResponse, webhooks: Sequence[Webhook]
    ) -> Iterator[None]:
        """Put the deliveries of a response into their lanes; yields after each `A_PIECE` of them."""
        wanted = [webhook for webhook in webhooks if wants(webhook, response.kind)]
        if not wanted:
            self._subscription.ack(envelope)
            return
        if self._taken_before(response.id):
            # Published twice, for its first confirm was late or lost. The first copy is settled by this session, or
            # comes again if the hold is lost.
            self._subscription.ack(envelope)
            return
        shares = self._shares
        count = 1
        if len(envelope.body) > LIGHT:
            count += weight(envelope.body) // self._shared.bytes_each
        receipt = Receipt(self._subscription, envelope, len(wanted), shares, count)
        conversation = conversation_key(response.channel_id, response.user_id)
        for number, webhook in enumerate(wanted, 1):
            waiting = Waiting(delivery_id(response.id, webhook.id), webhook.id, response, receipt, count)
            key = (webhook.id, conversation)
            shares.hold(webhook.id, count, new_lane=key not in self._lanes)
            self._lanes.put(key, waiting)
            if number % A_PIECE == 0:
                yield

    def _taken_before(self, response_id: str) -> bool:
        before = response_id in self._taken
        self._taken[response_id] = None
        if len(self._taken) > TAKEN_REMEMBERED:
            self._taken.popitem(last=False)
        return before

    async def _work(self, lane: Lane[LaneKey, Waiting]) -> None:
        parked = self._parked
        if parked is not None and parked.perhaps(lane.key):
            waiting = list(lane.items)
            if await self._shared.parking.append([item.delivery("pending") for item in waiting]):
                self._settle(lane, len(waiting))
                return
            parked.live(lane.key)
        await self._deliver(lane)

    async def _deliver(self, lane: Lane[LaneKey, Waiting]) -> None:
        head = lane.items[0]
        while True:
            result = await self._shared.deliverer.attempt(
                head.job(), waiting=lane.waiting, gives_way=lambda gate: self._gives_way(lane, gate)
            )
            if result.attempt is not None:
                head.attempts.append(result.attempt)
            match result:
                case Settled("delivered"):
                    self._shared.log.add(head.delivery("delivered"))
                    self._settle(lane, 1)
                    return
                case Settled(status, reason):
                    await self._give_up(head, status, reason or "")
                    self._settle(lane, 1)
                    return
                case Later(wait_s, "memory") if not self._gives_way(
                    lane, self._shared.gates.known(head.webhook_id), wait_s
                ):
                    with lane.waiting():
                        await asyncio.sleep(wait_s)
                case Later(wait_s, _):
                    await self._park(lane, wait_s)
                    return

    async def _give_up(self, head: Waiting, status: str, reason: str) -> None:
        log.warning(f"delivery.{status}", delivery=head.id, webhook=head.webhook_id, reason=reason)
        given_up = head.delivery(status, reason)
        await outlast(lambda: self._shared.store.log([given_up]), "delivery.logging")

    async def _park(self, lane: Lane[LaneKey, Waiting], wait_s: float) -> None:
        """Put the lane into the backlog: the head, and all that wait behind it at this moment."""
        waiting = list(lane.items)
        log.debug("lane.parked", webhook=lane.key[0], conversation=lane.key[1], messages=len(waiting))
        at = now()
        due = at + timedelta(seconds=wait_s)
        await self._shared.parking.park(
            LaneToPark(self._partition, [item.delivery("pending") for item in waiting], due, at)
        )
        if self._parked is not None:
            self._parked.parked(lane.key)
        self._settle(lane, len(waiting))

    def _settle(self, lane: Lane[LaneKey, Waiting], count: int) -> None:
        webhook_id, items, shares = lane.key[0], lane.items, self._shares
        for _ in range(count):
            settled = items.popleft()
            shares.let_go(webhook_id, settled.count, lane_ended=not items)
            settled.receipt.settled()

    def _gives_way(self, lane: Lane[LaneKey, Waiting], gate: Gate | None, wait_s: float = 0.0) -> bool:
        """Tell whether a lane gives way to others of the partition; its head waits for so many seconds first."""
        shares = self._shares
        if gate is None or not shares.short:
            return False
        at, busyness = self._shared.gates.clock(), self._shared.busyness
        each_s = gate.each_s(busyness.adds_s)
        lane_s = wait_s + len(lane.items) * each_s
        queue_s = max(wait_s, gate.queue_s(at, busyness.adds_s, each_s))
        if lane_s <= PATIENCE_S and queue_s <= PATIENCE_S:
            return False
        places = sum(item.count for item in lane.items)
        patience_s = shares.patience_s(at, busyness.part)
        return shares.gives_way(lane.key[0], places, lane_s, queue_s, patience_s)

    async def _bury(self, envelope: Envelope, reason: str, detail: str) -> None:
        log.warning("message.dead", stage="delivery", message=envelope.id, reason=reason)
        await bury(self._shared.broker, envelope, stage="delivery", reason=reason, detail=detail)
        self._subscription.ack(envelope)

    def _fail(self, key: LaneKey | str, error: BaseException) -> None:
        if not self.failed.done():
            self.failed.set_exception(error)


def wants(webhook: Webhook, kind: str) -> bool:
    """Tell whether a webhook's filter lets responses of this kind through."""
    if "response.#" in webhook.events:
        return True
    event = f"response.{kind}"
    return any(matches(pattern, event) for pattern in webhook.events)
