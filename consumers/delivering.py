"""Delivering: all that stands between a delivery and its webhook, for first tries and for the backlog alike.

Nothing here is raised for what an endpoint does or a message holds, and nothing is written: whoever asks settles what
comes of it.
"""

import asyncio
import random
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Protocol

import structlog

from broker.models.records import BotResponse, now
from broker.registry.records import Attempt, Channel, Webhook
from consumers.attempt import Outcome
from consumers.breaker import Admission
from consumers.directory import FRESH_S, Directory
from consumers.gates import Gate, Gates, Passage
from consumers.job import Job, Later, Settled
from consumers.lanes import HandedBack
from consumers.pace import LONGEST_TURN_S, Pace, Turn
from consumers.retry import Answer, Decision, Delivered, Disable, GiveUp, Policy, TryAgain, decide
from consumers.standing import Standing

log = structlog.get_logger()

#: How long a lane of a failing webhook that gave way waits for its attempt from the backlog, in seconds.
FAILING_WAIT_S = 1.0
#: A delivery waits so long in the backlog for its turn before it is looked at again, in seconds.
LONGEST_PACED_WAIT_S = 60.0
#: Whoever waits for a turn looks so often whether the webhook is still as it was, in seconds.
LOOK_AGAIN_S = 1.0


class Posting(Protocol):
    """Makes attempts."""

    async def post(
        self, channel: Channel, webhook: Webhook, response: BotResponse, delivery_id: str, number: int
    ) -> Outcome:
        """Make one attempt; never raises for anything that the endpoint does."""
        ...


class Disabling(Protocol):
    """Disables webhooks."""

    async def disable(self, webhook: Webhook, reason: str) -> None:
        """Disable a webhook, saying why."""
        ...


#: Opens the time in which a job waits and nothing has begun.
Waiting = Callable[[], AbstractContextManager[None]]
#: Tells, of a webhook's gate, whether the job's lane gives way to others of its partition.
GivesWay = Callable[[Gate], bool]


class Deliverer:
    """Tries deliveries. One object for a process: its partitions and the backlog share its gates."""

    def __init__(
        self,
        directory: Directory,
        poster: Posting,
        gates: Gates,
        disabling: Disabling,
        standing: Standing,
        policy: Policy,
    ) -> None:
        self._directory = directory
        self._poster = poster
        self._gates = gates
        self._disabling = disabling
        self._standing = standing
        self._policy = policy

    async def attempt(
        self, job: Job, *, waiting: Waiting, gives_way: GivesWay | None = None
    ) -> Settled | Later:
        """Make one attempt, if one may be made now. Raises nothing for what an endpoint does or a message holds.

        `waiting` is entered while nothing has begun yet, so that whoever stops can break that off.
        """
        try:
            return await self._attempt(job, waiting, gives_way)
        except HandedBack:
            raise
        except Exception as error:
            # Raised, it would end the session of the partition, again and again, and be no failed attempt either.
            log.exception("delivery.attempt_failed", delivery=job.id, webhook=job.webhook_id)
            detail = f"Postbote could not make this attempt ({type(error).__name__}); its log says why"
            failed = Attempt(job.attempts + 1, now(), 0, None, "unexpected", detail)
            return _settle(self._decide(job, self._policy_of(job), Answer(None), 0.0), failed)

    async def _attempt(self, job: Job, waiting: Waiting, gives_way: GivesWay | None) -> Settled | Later:
        began, waited_s = self._gates.clock(), 0.0
        since: float | None = None
        turn: Turn | None = None
        passage: Passage | None = None
        admission: Admission | None = None
        sure = False
        well: bool | None = None
        body_s = 0.0
        try:
            while True:
                # After each wait all is looked at anew: the webhook may be another by now, or gone.
                channel_id = job.response.channel_id
                # Nobody may have asked for the channel of what has waited.
                waited = not job.first or waited_s > FRESH_S
                found = self._directory.fresh(channel_id) if waited else self._directory.known(channel_id)
                if found is None:
                    look = self._directory.refreshed if waited else self._directory.of_channel
                    with waiting():
                        found = await look(channel_id)
                webhook = None if found is None else found.webhook(job.webhook_id)
                if found is None or webhook is None:
                    return Settled("dead", "the webhook was deleted")
                policy = self._policy.of(found.channel, webhook)
                outlived = policy.outlived(job.age_s + waited_s)
                if outlived is not None:
                    return Settled("expired", outlived)
                if not webhook.enabled:
                    return Later(0.0, "backlog")
                gate = self._gates.of(webhook)
                held_up = self._held_up(gate, gives_way if turn is None else None)
                if held_up is not None:
                    gate.ask()
                    return held_up
                if turn is not None or gate.pace is not None:
                    queued = self._queue_up(gate.pace, turn)
                    if isinstance(queued, Later):
                        if sure:
                            return queued
                        # So long a wait may be what somebody has just mended.
                        sure = True
                        self._directory.forget(job.response.channel_id)
                        continue
                    turn = queued
                    if turn is not None and not turn.come.done():
                        with waiting():
                            await asyncio.wait({turn.come}, timeout=LOOK_AGAIN_S)
                        waited_s = self._gates.clock() - began
                        continue
                if passage is not None:
                    break
                passage = self._gates.enter_now(gate, first=job.first)
                if passage is not None:
                    break
                if since is None:
                    # A first try has waited since it came into memory, whatever is asked for has from now on.
                    since = self._gates.clock() - (job.in_memory_s if job.first else 0.0)
                with waiting():
                    passage = await self._gates.enter(gate, first=job.first, since=since)
                waited_s = self._gates.clock() - began
            admission = gate.breaker.admit(self._gates.clock())
            if admission is None:
                return Later(gate.breaker.wait_s(self._gates.clock()), "backlog")
            turn = None
            outcome = await self._poster.post(found.channel, webhook, job.response, job.id, job.attempts + 1)
            answer = outcome.answer
            well, body_s = answer.alive, outcome.body_s
        except BaseException:
            if admission is not None:
                gate.breaker.abandon(admission)
            raise
        finally:
            if turn is not None:
                turn.leave()
            if passage is not None:
                # An answer whose body trickles was quick all the same: its status line is what counts.
                passage.leave(well, self._gates.clock() - body_s)
        self._learn(gate, webhook, admission, answer, policy)
        decision = self._decide(job, policy, answer, waited_s + outcome.attempt.duration_ms / 1000)
        if isinstance(decision, Disable):
            await self._disabling.disable(webhook, decision.reason)
        return _settle(decision, outcome.attempt)

    def _policy_of(self, job: Job) -> Policy:
        """Return the policy that a delivery goes by, or the usual one where its own cannot be had."""
        found = self._directory.known(job.response.channel_id)
        webhook = None if found is None else found.webhook(job.webhook_id)
        if found is None or webhook is None:
            return self._policy
        try:
            return self._policy.of(found.channel, webhook)
        except ValueError:
            return self._policy

    def _queue_up(self, pace: Pace | None, turn: Turn | None) -> Turn | Later | None:
        """Return a turn at the webhook's pace as it is now, or for how long to wait outside of memory."""
        if turn is not None:
            if turn.pace is pace:
                return turn
            turn.leave()
        if pace is None:
            return None
        wait_s = pace.wait_s(self._gates.clock())
        if wait_s > LONGEST_TURN_S:
            # In time to queue up before its turn comes, and not for longer than it may take to learn of another pace.
            return Later(min(wait_s - LONGEST_TURN_S / 2, LONGEST_PACED_WAIT_S), "backlog")
        return pace.turn()

    def _decide(self, job: Job, policy: Policy, answer: Answer, lasted_s: float) -> Decision:
        return decide(
            policy,
            answer,
            attempts=job.attempts + 1 - job.attempts_before,
            in_memory_s=job.in_memory_s + lasted_s,
            age_s=job.age_s + lasted_s,
            chance=random.random(),  # noqa: S311 - spreads load, keeps no secret
        )

    def _held_up(self, gate: Gate, gives_way: GivesWay | None) -> Later | None:
        rest_s = gate.breaker.wait_s(self._gates.clock())
        if gives_way is not None and gives_way(gate):
            return Later(max(rest_s, FAILING_WAIT_S) if gate.failing else rest_s, "backlog")
        return Later(rest_s, "backlog") if rest_s else None

    def _learn(
        self, gate: Gate, webhook: Webhook, admission: Admission, answer: Answer, policy: Policy
    ) -> None:
        at = self._gates.clock()
        alive = answer.alive
        gate.failing = not alive
        change = gate.breaker.record(admission, alive, at)
        if answer.rest_s:
            rest_s = min(answer.rest_s, policy.schedule.retry_after_limit_s)
            change = gate.breaker.rest(rest_s, at) or change
        delivered = answer.status_code is not None and 200 <= answer.status_code < 300
        self._standing.note(webhook, delivered=delivered, change=change)


def _settle(decision: Decision, attempt: Attempt) -> Settled | Later:
    match decision:
        case Delivered():
            return Settled("delivered", None, attempt)
        case GiveUp(reason, status):
            return Settled(status, reason, attempt)
        case Disable():
            return Later(0.0, "backlog", attempt)
        case TryAgain(wait_s, from_):
            return Later(wait_s, from_, attempt)
