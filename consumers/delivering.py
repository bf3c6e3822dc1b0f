"""Delivering: all that stands between a delivery and its webhook, for first tries and for the backlog alike.

Nothing here is raised for what an endpoint does, and nothing is written: whoever asks settles what comes of it.
"""

import asyncio
import random
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Literal, Protocol

from broker.models.records import BotResponse
from broker.registry.records import Attempt, Channel, Webhook
from consumers.attempt import Outcome
from consumers.breaker import Admission
from consumers.directory import Directory
from consumers.gates import Gate, Gates, Passage
from consumers.retry import Answer, Decision, Delivered, Disable, GiveUp, Policy, TryAgain, decide
from consumers.standing import Standing

#: How long what a slow or failing webhook had too much of waits for its attempt from the backlog, in seconds.
CROWDING_WAIT_S = 1.0


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


@dataclass(slots=True)
class Job:
    """One delivery that is to be tried."""

    id: str
    webhook_id: str
    response: BotResponse
    #: Attempts so far, and of these the ones before its last redrive, which the schedule does not count.
    attempts: int
    attempts_before: int
    #: How old it is, and for how long it has been in memory, in seconds: infinite where it is in the backlog.
    age_s: float
    in_memory_s: float

    @property
    def first(self) -> bool:
        """True for a first try; what comes from the backlog is none, whatever it went through."""
        return self.attempts == 0 and self.in_memory_s < float("inf")


@dataclass(slots=True)
class Settled:
    """The delivery is done with."""

    status: Literal["delivered", "dead", "expired"]
    reason: str | None = None
    attempt: Attempt | None = None


@dataclass(slots=True)
class Later:
    """The delivery waits, in memory or in the backlog, for so many seconds."""

    wait_s: float
    from_: Literal["memory", "backlog"]
    attempt: Attempt | None = None


#: Opens the time in which a job waits and nothing has begun.
Waiting = Callable[[], AbstractContextManager[None]]


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
        self, job: Job, *, waiting: Waiting, crowds: Callable[[], bool] = lambda: False
    ) -> Settled | Later:
        """Make one attempt, if one may be made now.

        `waiting` is entered while nothing has begun yet, so that whoever stops can break that off. `crowds`
        tells whether the webhook has more in memory than a slow or failing one may have.
        """
        found = self._directory.known(job.response.channel_id)
        if found is None:
            with waiting():
                found = await self._directory.of_channel(job.response.channel_id)
        webhook = None if found is None else found.webhook(job.webhook_id)
        if found is None or webhook is None:
            return Settled("dead", "the webhook was deleted")
        policy = self._policy.of(found.channel, webhook)
        outlived = policy.outlived(job.age_s)
        if outlived is not None:
            return Settled("expired", outlived)
        if not webhook.enabled:
            return Later(0.0, "backlog")
        gate = self._gates.of(webhook)
        if gate.pace is not None and self._held_up(gate, crowds) is None:
            with waiting():
                await asyncio.sleep(gate.pace.take(self._gates.clock()))
        passage: Passage | None = None
        since: float | None = None
        while passage is None:
            held_up = self._held_up(gate, crowds)
            if held_up is not None:
                gate.ask()
                return held_up
            passage = self._gates.enter_now(gate, first=job.first)
            if passage is None:
                if since is None:
                    # A first try has waited since it came into memory, whatever is asked for has from now on.
                    since = self._gates.clock() - (job.in_memory_s if job.first else 0.0)
                with waiting():
                    passage = await self._gates.enter(gate, first=job.first, since=since)
        well: bool | None = None
        body_s = 0.0
        try:
            # While it waited for its place, others may have found out that the endpoint fails.
            held_up = self._held_up(gate, crowds) if since is not None else None
            if held_up is not None:
                return held_up
            admission = gate.breaker.admit(self._gates.clock())
            if admission is None:
                return Later(gate.breaker.wait_s(self._gates.clock()), "backlog")
            try:
                outcome = await self._poster.post(
                    found.channel, webhook, job.response, job.id, job.attempts + 1
                )
            except BaseException:
                gate.breaker.abandon(admission)
                raise
            answer = outcome.answer
            well, body_s = answer.alive, outcome.body_s
        finally:
            # An answer whose body trickles was quick all the same: its status line is what counts.
            passage.leave(well, self._gates.clock() - body_s)
        self._learn(gate, webhook, admission, answer, policy)
        decision = decide(
            policy,
            answer,
            attempts=job.attempts + 1 - job.attempts_before,
            in_memory_s=job.in_memory_s + outcome.attempt.duration_ms / 1000,
            age_s=job.age_s + outcome.attempt.duration_ms / 1000,
            chance=random.random(),  # noqa: S311 - spreads load, keeps no secret
        )
        return await self._conclude(decision, outcome.attempt, webhook)

    def _held_up(self, gate: Gate, crowds: Callable[[], bool]) -> Later | None:
        at = self._gates.clock()
        rest_s = gate.breaker.wait_s(at)
        # In this order: to tell whether it crowds may take a look at all that is held.
        if (rest_s or gate.troubled(at)) and crowds():
            return Later(max(rest_s, CROWDING_WAIT_S), "backlog")
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

    async def _conclude(self, decision: Decision, attempt: Attempt, webhook: Webhook) -> Settled | Later:
        match decision:
            case Delivered():
                return Settled("delivered", None, attempt)
            case GiveUp(reason, status):
                return Settled(status, reason, attempt)
            case Disable(reason):
                await self._disabling.disable(webhook, reason)
                return Later(0.0, "backlog", attempt)
            case TryAgain(wait_s, from_):
                return Later(wait_s, from_, attempt)
