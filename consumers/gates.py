"""Gates: what stands before each webhook, so that a broken endpoint costs its own customer only.

One object for a process. A gate knows how many attempts are in flight and since when, whether the endpoint
fails, its pace, and its circuit breaker.
"""

import time
from collections import OrderedDict
from collections.abc import Callable
from itertools import islice

from broker.registry.records import Webhook
from consumers.breaker import Breaker, Tuning
from consumers.concurrency import Concurrency
from consumers.in_flight import Place, Places
from consumers.pace import LONGEST_TURN_S, Pace

#: Gates kept; of those that nobody uses and that know nothing bad, the one used longest ago goes first.
MOST_GATES = 20_000
#: An endpoint is slow where half of its attempts in flight have waited longer than this, or the last ones took
#: longer on average, in seconds.
SLOW_S = 1.0
#: Whoever has waited so long for one of the webhook's places looks whether to wait on, in seconds.
ASK_AGAIN_S = 1.0
#: How much the last attempt weighs in the average.
LAST_WEIGHS = 0.1


class Gate:
    """What stands before one webhook."""

    __slots__ = ("average_s", "breaker", "failing", "own", "pace", "started", "users")

    def __init__(self, most: int, tuning: Tuning) -> None:
        #: The webhook's own places.
        self.own = Concurrency(most)
        #: The attempts in flight, oldest first, each with the moment when it began.
        self.started: dict[Passage, float] = {}
        self.average_s = 0.0
        self.breaker = Breaker(tuning)
        self.pace: Pace | None = None
        #: True where the last attempt failed.
        self.failing = False
        #: How many wait for it or are in flight.
        self.users = 0

    @property
    def idle(self) -> bool:
        """True where nothing would be lost if it were made anew."""
        return not self.users and not self.failing and self.pace is None and self.breaker.idle

    def troubled(self, at: float) -> bool:
        """Tell whether the endpoint fails, takes long, hangs, or has a pace that makes deliveries wait."""
        if self.failing or self.average_s > SLOW_S:
            return True
        if self.pace is not None and self.pace.wait_s(at) > SLOW_S:
            return True
        if not self.started or at - next(iter(self.started.values())) <= SLOW_S:
            # Not even the oldest has waited so long.
            return False
        return at - next(islice(self.started.values(), len(self.started) // 2, None)) > SLOW_S


class Gates:
    """Finds the gate of each webhook, and lets attempts through."""

    def __init__(
        self,
        *,
        most: int,
        most_each: int,
        most_hanging: int = 2048,
        tuning: Tuning | None = None,
        workers: Callable[[], int] = lambda: 1,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._places = Places(most, most_hanging)
        self._most_each = most_each
        self._tuning = tuning or Tuning()
        self._workers = workers
        self._gates: OrderedDict[str, Gate] = OrderedDict()
        self.clock = clock

    def of(self, webhook: Webhook) -> Gate:
        """Return a webhook's gate, with its pace as it is set now.

        A pace is shared by all delivery workers alike, since each has its part of the conversations.
        """
        gate = self.known(webhook.id)
        if gate is None:
            gate = self._gates[webhook.id] = Gate(self._most_each, self._tuning)
            self._forget_some()
        if webhook.rate_limit is None:
            gate.pace = None
        else:
            share = webhook.rate_limit / max(1, self._workers())
            if gate.pace is None:
                gate.pace = Pace(share, self.clock)
            gate.pace.rate = share
        return gate

    def known(self, webhook_id: str) -> Gate | None:
        """Return a webhook's gate where it has one."""
        gate = self._gates.get(webhook_id)
        if gate is not None:
            self._gates.move_to_end(webhook_id)
        return gate

    def troubled(self, webhook_id: str) -> bool:
        """Tell whether a webhook fails, is slow, hangs, or is left alone."""
        gate = self._gates.get(webhook_id)
        return gate is not None and (not gate.breaker.closed or gate.troubled(self.clock()))

    def room(self, webhook_id: str) -> int:
        """Return how many more lanes of a webhook it makes sense to drain at this moment."""
        gate = self.known(webhook_id)
        if gate is None:
            return self._most_each
        if not gate.breaker.closed:
            return 0 if gate.breaker.wait_s(self.clock()) else 1
        most = self._most_each
        if gate.pace is not None:
            # A lane that waits for its turn for longer should not be held.
            most = max(1, min(most, int(gate.pace.rate * LONGEST_TURN_S)))
        return max(0, most - gate.users)

    async def enter(self, gate: Gate, *, first: bool, since: float) -> "Passage | None":
        """Wait for a place for one attempt, since that moment; first tries go before retries. Leave it afterwards.

        None after `ASK_AGAIN_S` without one: what stands before the webhook may look different by now.
        """
        gate.users += 1
        passage: Passage | None = None
        try:
            # The webhook's own place first: while it waits for that, it takes up none of the others'.
            if await gate.own.take(ASK_AGAIN_S, since):
                try:
                    passage = Passage(gate, self._places, await self._places.take(first=first), self.clock())
                finally:
                    if passage is None:
                        gate.own.give_back(None)
        finally:
            if passage is None:
                gate.users -= 1
        return passage

    def enter_now(self, gate: Gate, *, first: bool) -> "Passage | None":
        """Take a place for one attempt where that needs no waiting; None otherwise."""
        if not gate.own.take_now():
            return None
        place = self._places.take_now(first=first)
        if place is None:
            gate.own.give_back(None)
            return None
        gate.users += 1
        return Passage(gate, self._places, place, self.clock())

    def _forget_some(self) -> None:
        for webhook_id, gate in list(islice(self._gates.items(), max(0, len(self._gates) - MOST_GATES))):
            if gate.idle:
                del self._gates[webhook_id]


class Passage:
    """One attempt on its way through a gate, from `Gates.enter` to `leave`."""

    __slots__ = ("_gate", "_place", "_places")

    def __init__(self, gate: Gate, places: Places, place: Place, at: float) -> None:
        self._gate = gate
        self._places = places
        self._place = place
        gate.started[self] = at

    def leave(self, well: bool | None, at: float) -> None:
        """Leave; call this once. `well` says whether the endpoint did its work, None where no attempt was made."""
        gate = self._gate
        lasted = at - gate.started.pop(self)
        if well is not None:
            gate.average_s += LAST_WEIGHS * (lasted - gate.average_s)
        gate.users -= 1
        gate.own.give_back(None if well is None else well and lasted < SLOW_S)
        self._places.leave(self._place)
