"""Draining the backlog: lanes whose next attempt is due are taken hold of, and delivered head first, in order.

Any delivery worker may drain any lane, for as long as its lease runs. A worker that died lets go by the clock;
one that was thought dead and goes on can make a delivery come twice, never out of order, for it works along the
lane in order like the other.
"""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta

import structlog
from pydantic import ValidationError

from broker.models.records import BotResponse, now
from broker.registry.backlog import LaneWorked
from broker.registry.records import BacklogLane, Delivery
from consumers.clock_watch import ClockWatch
from consumers.delivering import Deliverer
from consumers.gates import Gates
from consumers.job import Job, Later, Settled
from consumers.lanes import HandedBack
from consumers.parking import Parking
from consumers.rejection import why_invalid
from consumers.serving import Stop

log = structlog.get_logger()

#: How often to look for lanes that are due, in seconds.
LOOK_S = 0.5
#: Lanes drained at a time by one worker.
LANES = 256
#: What was delivered is written at least so often, in seconds: it is what a crash makes come twice.
SETTLE_S = 5.0
#: Longer than a page can take between two writes: one attempt at its longest, and some.
LEASE_S = 120.0


#: No lane is held, or was written, so far from now, where all clocks are right to a minute or two, in seconds.
AHEAD_S = 2 * LEASE_S


class Drainer:
    """Drains the backlog with one task for each lane in hand. `run` ends when stopping begins."""

    def __init__(self, parking: Parking, deliverer: Deliverer, gates: Gates, stop: Stop) -> None:
        self._parking = parking
        self._deliverer = deliverer
        self._gates = gates
        self._stop = stop
        self._lanes: dict[asyncio.Task[None], _Hold] = {}
        self._clock = ClockWatch(LEASE_S)

    async def run(self) -> None:
        """Look for due lanes and drain them, until told to stop; then let what is in flight end."""
        try:
            while not self._stop.is_set():
                await self._look()
            for hold in self._lanes.values():
                hold.let_go()
            if self._lanes:
                await asyncio.wait(self._lanes, timeout=self._stop.grace_s)
        finally:
            late = list(self._lanes)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    async def _look(self) -> None:
        began = time.monotonic()
        if self._clock.set_back(now().timestamp(), began):
            await self._bring_back()
        try:
            claimed = await self._claim()
        except Exception:
            log.exception("backlog.claim_failed")
            claimed = []
        for lane in claimed:
            hold = _Hold(lane)
            task = asyncio.create_task(self._drain(hold))
            self._lanes[task] = hold
            task.add_done_callback(self._lanes.pop)
        if claimed:
            # There may be more; what was claimed is not due any more, so this does not spin.
            await asyncio.wait(self._lanes, timeout=LOOK_S, return_when=asyncio.FIRST_COMPLETED)
        else:
            # With a backlog of very many webhooks a look takes a while: no more than a tenth of the time.
            pause = max(LOOK_S, 10 * (time.monotonic() - began))
            await self._stop.sleep(pause * random.uniform(0.8, 1.2))  # noqa: S311 - spreads load

    async def _bring_back(self) -> None:
        try:
            brought = await self._stop.unless(self._parking.bring_back(AHEAD_S))
            if brought:
                log.warning("backlog.clock_set_back", lanes=brought)
        except Exception:
            log.exception("backlog.bringing_back_failed")

    async def _claim(self) -> list[BacklogLane]:
        room = LANES - len(self._lanes)
        if room <= 0:
            return []
        return await self._stop.unless(self._claim_up_to(room)) or []

    async def _claim_up_to(self, room: int) -> list[BacklogLane]:
        due = await self._parking.due()
        drained = Counter(hold.lane.webhook_id for hold in self._lanes.values())
        rooms = {webhook: self._gates.room(webhook, drained[webhook]) for webhook in due}
        for server_room, webhooks in self._gates.servers(rooms):
            # Webhooks of one server share its room: lanes that wait for it only keep others from being drained.
            shares = share(server_room, {webhook: rooms[webhook] for webhook in webhooks})
            rooms.update((webhook, shares.get(webhook, 0)) for webhook in webhooks)
        wanted = share(room, rooms)
        return await self._parking.claim(wanted, LEASE_S) if wanted else []

    async def _drain(self, hold: "_Hold") -> None:
        lane = hold.lane
        try:
            while await self._drain_page(hold):
                pass
        except HandedBack:
            # Nothing of it was done since the last write: let go, so that another worker need not wait.
            at = now()
            await self._parking.settle(LaneWorked(lane, (), at, None, at))
        except Exception:
            # The lease runs out, and another worker tries then.
            log.exception("backlog.drain_failed", webhook=lane.webhook_id, conversation=lane.conversation_key)

    async def _drain_page(self, hold: "_Hold") -> bool:
        """Deliver from the lane's head on; True while there is more to deliver now."""
        lane = hold.lane
        done: list[Delivery] = []
        wait_s: float | None = None
        since = time.monotonic()
        for delivery in await self._parking.head(lane):
            try:
                tried, wait_s = await self._attempt(delivery, hold)
            except HandedBack:
                break
            done.append(tried)
            if wait_s is not None or hold.letting_go or time.monotonic() - since > SETTLE_S:
                break
        going_on = wait_s is None and not hold.letting_go
        at = now()
        due = at + timedelta(seconds=wait_s or 0.0)
        live = await self._parking.settle(LaneWorked(lane, done, due, LEASE_S if going_on else None, at))
        if live:
            log.debug("lane.live", webhook=lane.webhook_id, conversation=lane.conversation_key)
        return going_on and not live

    async def _attempt(self, delivery: Delivery, hold: "_Hold") -> tuple[Delivery, float | None]:
        """Make one attempt; the wait before the next is None where the delivery is settled."""
        if delivery.response is None:
            return _settled(delivery, Settled("dead", "its response is missing")), None
        try:
            response = BotResponse.model_validate(delivery.response)
        except ValidationError as error:
            # Raised, it would hold up its lane for ever.
            unknown = f"not a bot response of a known version: {why_invalid(error)}"
            return _settled(delivery, Settled("dead", unknown)), None
        job = Job(
            delivery.id,
            delivery.webhook_id,
            response,
            attempts=delivery.attempt_count,
            attempts_before=delivery.attempts_before,
            age_s=(now() - (delivery.redriven_at or delivery.created_at)).total_seconds(),
            in_memory_s=float("inf"),
        )
        result = await self._deliverer.attempt(job, waiting=hold.waiting)
        if result.attempt is not None:
            delivery = replace(delivery, attempt_count=result.attempt.number, attempts=(result.attempt,))
        match result:
            case Settled(status, reason):
                if status != "delivered":
                    log.warning(
                        f"delivery.{status}", delivery=delivery.id, webhook=delivery.webhook_id, reason=reason
                    )
                return _settled(delivery, result), None
            case Later(wait_s, _):
                return delivery, wait_s


class _Hold:
    """A lane in hand, which lets go where it only waits."""

    def __init__(self, lane: BacklogLane) -> None:
        self.lane = lane
        self.letting_go = False
        self._waiting_in: asyncio.Task[None] | None = None

    def let_go(self) -> None:
        """Take up nothing more, and end the waiting."""
        self.letting_go = True
        if self._waiting_in is not None:
            self._waiting_in.cancel()

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Open a time that `let_go` breaks off. Raises HandedBack then."""
        if self.letting_go:
            raise HandedBack
        task = self._waiting_in = asyncio.current_task()
        try:
            yield
        except asyncio.CancelledError:
            if task is None or not self.letting_go:
                raise
            task.uncancel()
            raise HandedBack from None
        finally:
            self._waiting_in = None


def share(room: int, rooms: dict[str, int]) -> dict[str, int]:
    """Share out room for lanes among webhooks, fairly: nobody gets more than it has room for.

    Who gets one more than another is drawn, so that nobody is last each time.
    """
    open_ = [webhook for webhook, most in rooms.items() if most > 0]
    random.shuffle(open_)
    shares: dict[str, int] = dict.fromkeys(open_[:room], 0)
    open_ = list(shares)
    while room > 0 and open_:
        each = max(1, room // len(open_))
        for webhook in open_:
            more = min(each, rooms[webhook] - shares[webhook], room)
            shares[webhook] += more
            room -= more
        open_ = [webhook for webhook in open_ if shares[webhook] < rooms[webhook]]
    return shares


def _settled(delivery: Delivery, result: Settled) -> Delivery:
    response = None if result.status == "delivered" else delivery.response
    return replace(delivery, status=result.status, reason=result.reason, finished_at=now(), response=response)
