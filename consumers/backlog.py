"""Draining the backlog: lanes whose next attempt is due are taken hold of, and delivered head first, in order.

Any delivery worker may drain any lane, for as long as its lease runs. A worker that died lets go by the clock;
one that was thought dead and goes on can make a delivery come twice, never out of order, for it works along the
lane in order like the other.
"""

import asyncio
import random
import time
from dataclasses import replace
from datetime import timedelta

import structlog

from broker.models.records import BotResponse, now
from broker.registry.records import BacklogLane, Delivery
from consumers.delivery_worker import Delivering
from consumers.outage import outlast
from consumers.parking import BacklogStore
from consumers.retry import Delivered, Disable, GiveUp, TryAgain, decide

log = structlog.get_logger()

#: How often to look for lanes that other workers parked, in seconds.
LOOK_S = 1.0
#: Lanes drained at a time by one worker.
LANES = 64
#: Deliveries of a lane read at a time.
PAGE = 50
#: What was delivered is written at least so often, in seconds: it is what a crash makes come twice.
SETTLE_S = 5.0
#: Longer than a page can take between two writes: one attempt at its longest, and some.
LEASE_S = 120.0


class Drainer:
    """Drains the backlog with one task for each lane in hand. `run` ends when stopping begins."""

    def __init__(self, store: BacklogStore, shared: Delivering) -> None:
        self._store = store
        self._shared = shared
        self._lanes: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Look for due lanes and drain them, until told to stop; then let what is in flight end."""
        stop = self._shared.stop
        while not stop.is_set():
            room = LANES - len(self._lanes)
            try:
                claimed = await self._claim(room) if room else []
            except Exception:
                log.exception("backlog.claim_failed")
                claimed = []
            for lane in claimed:
                task = asyncio.create_task(self._drain(lane))
                self._lanes.add(task)
                task.add_done_callback(self._lanes.discard)
            if claimed and len(claimed) == room:
                await asyncio.wait(self._lanes, return_when=asyncio.FIRST_COMPLETED)
            else:
                await stop.sleep(LOOK_S)
        if self._lanes:
            _, late = await asyncio.wait(self._lanes, timeout=stop.grace_s)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    async def _claim(self, room: int) -> list[BacklogLane]:
        claiming = asyncio.create_task(outlast(lambda: self._store.claim(room, LEASE_S), "backlog.claiming"))
        stopping = asyncio.create_task(self._shared.stop.wait())
        await asyncio.wait({claiming, stopping}, return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        claiming.cancel()
        (claimed, _) = await asyncio.gather(claiming, stopping, return_exceptions=True)
        if isinstance(claimed, Exception):
            raise claimed
        return claimed if isinstance(claimed, list) else []

    async def _drain(self, lane: BacklogLane) -> None:
        try:
            while await self._drain_page(lane):
                pass
        except Exception:
            # The lease runs out, and another worker tries then.
            log.exception("backlog.drain_failed", webhook=lane.webhook_id, conversation=lane.conversation_key)

    async def _drain_page(self, lane: BacklogLane) -> bool:
        """Deliver from the lane's head on; True while there is more to deliver now."""
        stop = self._shared.stop
        done: list[Delivery] = []
        wait_s: float | None = None
        since = time.monotonic()
        for delivery in await outlast(lambda: self._store.head(lane, PAGE), "backlog.reading"):
            tried, wait_s = await self._attempt(delivery)
            done.append(tried)
            if wait_s is not None or stop.is_set() or time.monotonic() - since > SETTLE_S:
                break
        going_on = wait_s is None and not stop.is_set()
        due = now() + timedelta(seconds=wait_s or 0.0)
        live = await outlast(
            lambda: self._store.settle(
                lane, done, next_attempt_at=due, lease_s=LEASE_S if going_on else None
            ),
            "backlog.settling",
        )
        if live:
            log.info("lane.live", webhook=lane.webhook_id, conversation=lane.conversation_key)
        return going_on and not live

    async def _attempt(self, delivery: Delivery) -> tuple[Delivery, float | None]:
        """Make one attempt; the wait before the next is None where the delivery is settled."""
        shared = self._shared
        found = await shared.directory.of_channel(delivery.channel_id)
        webhook = next((w for w in found.webhooks if w.id == delivery.webhook_id), None) if found else None
        if found is None or webhook is None or delivery.response is None:
            return _settled(delivery, "dead", "the webhook was deleted"), None
        if not webhook.enabled:
            return delivery, LOOK_S
        number = delivery.attempt_count + 1
        response = BotResponse.model_validate(delivery.response)
        async with shared.in_flight.place(webhook.id):
            outcome = await shared.poster.post(found.channel, webhook, response, delivery.id, number)
        tried = replace(delivery, attempt_count=number, attempts=(outcome.attempt,))
        decision = decide(
            shared.schedule,
            outcome.answer,
            attempts=number,
            in_memory_s=float("inf"),
            chance=random.random(),  # noqa: S311 - spreads load, keeps no secret
        )
        match decision:
            case Delivered():
                return _settled(tried, "delivered", None), None
            case Disable(reason):
                await shared.disabling.disable(webhook, reason)
                return tried, LOOK_S
            case GiveUp(reason):
                log.warning("delivery.dead", delivery=delivery.id, webhook=webhook.id, reason=reason)
                return _settled(tried, "dead", reason), None
            case TryAgain(wait_s, _):
                return tried, wait_s


def _settled(delivery: Delivery, status: str, reason: str | None) -> Delivery:
    response = None if status == "delivered" else delivery.response
    return replace(delivery, status=status, reason=reason, finished_at=now(), response=response)  # type: ignore[arg-type]
