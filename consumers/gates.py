"""Gates: what stands before each webhook, so that a broken endpoint costs its own customer only.

One object for a process. A gate knows how many attempts are in flight and since when, whether the endpoint
fails, its pace, its circuit breaker, and which other webhooks lead to the same server.
"""

import time
from collections import OrderedDict
from collections.abc import Callable, Iterable

from broker.registry.records import Webhook
from consumers.average import Average
from consumers.breaker import Breaker, Tuning
from consumers.concurrency import Concurrency
from consumers.in_flight import Place, Places
from consumers.origins import OriginPlaces, Origins, Share, half_s
from consumers.pace import LONGEST_TURN_S, Pace

#: Gates kept; of those that nobody uses and that know nothing bad, the one used longest ago goes first. Where so many
#: again know something bad, those go too.
MOST_GATES = 20_000
#: Of the gates beyond, so many are looked at for each one that is made.
LOOKED_AT = 2
#: What goes to an endpoint that fails is taken to need at least so long, in seconds: it is tried again, and again.
FAILING_S = 10.0
#: Whoever has waited so long for one of the webhook's places looks whether to wait on, in seconds.
ASK_AGAIN_S = 1.0
#: One in so many of a webhook's places is for lanes that wait in the backlog.
FAIR_PART = 2
#: How long an attempt takes is the average of those that ended in the last seconds, so many up to twice as many.
AVERAGED_S = 1.0


class Gate:
    """What stands before one webhook."""

    __slots__ = (
 "breaker", "failing", "own", "pace", "share", "started", "takes", "url", "users"
    )  # fmt: skip

    def __init__(self, most: int, spare: Callable[[], int], tuning: Tuning, url: str, share: Share) -> None:
        #: The webhook's own places.
        self.own = Concurrency(most, spare)
        #: The places of the server that its URL leads to, which it shares with other webhooks.
        self.url = url
        self.share = share
        #: The attempts in flight, oldest first, each with the moment when it began.
        self.started: dict[Passage, float] = {}
        self.takes = Average(AVERAGED_S)
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

    def ask(self) -> None:
        """Tell one of those who wait to look whether to wait on."""
        self.own.ask()
        self.share.waiters.ask()

    def each_s(self, ours_s: float) -> float:
        """Return how long each delivery of a lane takes, as things are, in seconds.

        `ours_s` of what an attempt took is this process' own doing, and does not count.
        """
        takes_s = self.takes.mean - ours_s
        if takes_s <= 0:
            return 0.0
        waves = self.users / self.own.expected
        # The first answers of an endpoint, or of a process that begins, are late for other reasons.
        return takes_s * waves if waves > 1 and self.takes.ever >= self.own.expected else takes_s

    def queue_s(self, at: float, ours_s: float = 0.0, each_s: float | None = None) -> float:
        """Return within how many seconds what comes now is settled, as `each_s` has it; 0 where nothing is known.

        It fails, takes long or hangs, or its pace or its server makes deliveries wait. Whoever knows it brings `each_s`.
        """
        longest = self.each_s(ours_s) if each_s is None else each_s
        if self.failing and longest < FAILING_S:
            longest = FAILING_S
        if self.pace is not None:
            longest = max(longest, self.pace.wait_s(at))
        at -= ours_s
        if self.share.waiters.waiting:
            longest = max(longest, self.share.origin.half_s(at))
        if self.started and at - next(iter(self.started.values())) > longest:
            # Where the oldest has not waited so long, no other has.
            longest = max(longest, half_s(self.started, at))
        return longest


class Gates:
    """Finds the gate of each webhook, and lets attempts through."""

    def __init__(
        self,
        *,
        most: int,
        most_each: int,
        most_each_origin: int = 128,
        most_hanging: int = 2048,
        tuning: Tuning | None = None,
        workers: Callable[[], int] = lambda: 1,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._places = Places(most, most_hanging)
        self._most_each = most_each
        self._origins = Origins(most_each_origin)
        self._tuning = tuning or Tuning()
        self._workers = workers
        self._gates: OrderedDict[str, Gate] = OrderedDict()
        self.clock = clock

    def of(self, webhook: Webhook) -> Gate:
        """Return a webhook's gate, with its URL and its pace as they are set now.

        A pace is shared by all delivery workers alike, since each has its part of the conversations.
        """
        gate = self.known(webhook.id)
        if gate is None:
            gate = self._gates[webhook.id] = Gate(
                self._most_each,
                self._places.spare,
                self._tuning,
                webhook.url,
                self._origins.share_of(webhook),
            )
            self._forget_some()
        elif gate.url != webhook.url:
            gate.url, gate.share = webhook.url, self._origins.share_of(webhook)
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

    def room(self, webhook_id: str, drained: int = 0) -> int:
        """Return how many more lanes of a webhook it makes sense to drain at this moment, beside those in hand.

        Others may use all of its places: a fair part is for what waits in the backlog even so.
        """
        gate = self.known(webhook_id)
        if gate is None:
            return self._most_each
        if not gate.breaker.closed:
            return 0 if gate.breaker.wait_s(self.clock()) else 1
        most = self._most_each
        if gate.pace is not None:
            # A lane that waits for its turn for longer should not be held.
            most = max(1, min(most, int(gate.pace.rate * LONGEST_TURN_S)))
        return max(0, most - gate.users, int(min(gate.own.limit, most)) // FAIR_PART - drained)

    def servers(self, webhook_ids: Iterable[str]) -> list[tuple[int, list[str]]]:
        """Group webhooks by the server that they lead to, each with the room there, as far as they are known."""
        found: dict[OriginPlaces, list[str]] = {}
        for webhook_id in webhook_ids:
            gate = self._gates.get(webhook_id)
            if gate is not None:
                found.setdefault(gate.share.origin, []).append(webhook_id)
        return [(origin.room, webhooks) for origin, webhooks in found.items()]

    async def enter(self, gate: Gate, *, first: bool, since: float) -> "Passage | None":
        """Wait for a place for one attempt, since that moment; first tries go before retries. Leave it afterwards.

        None after `ASK_AGAIN_S` without one: what stands before the webhook may look different by now.
        """
        gate.users += 1
        passage: Passage | None = None
        try:
            # The webhook's own place first, then one at its server: who waits takes up none of the others'.
            if await gate.own.take(ASK_AGAIN_S, since):
                try:
                    passage = await self._enter_server(gate, first=first, since=since)
                finally:
                    if passage is None:
                        gate.own.give_back()
        finally:
            if passage is None:
                gate.users -= 1
        return passage

    async def _enter_server(self, gate: Gate, *, first: bool, since: float) -> "Passage | None":
        share, began = gate.share, self.clock()
        if not await share.take(ASK_AGAIN_S, since):
            return None
        waited_s = self.clock() - began
        try:
            place = await self._places.take(first=first)
        except BaseException:
            share.give_back()
            raise
        return Passage(gate, share, self._places, place, self.clock(), waited_s)

    def enter_now(self, gate: Gate, *, first: bool) -> "Passage | None":
        """Take a place for one attempt where that needs no waiting; None otherwise."""
        if not gate.own.take_now():
            return None
        share = gate.share
        if share.take_now():
            place = self._places.take_now(first=first)
            if place is not None:
                gate.users += 1
                return Passage(gate, share, self._places, place, self.clock(), 0.0)
            share.give_back()
        gate.own.give_back()
        return None

    def _forget_some(self) -> None:
        # A few at a time: a channel may have more webhooks in use than are kept.
        for _ in range(min(LOOKED_AT, len(self._gates) - MOST_GATES)):
            webhook_id, gate = next(iter(self._gates.items()))
            if gate.idle or (not gate.users and len(self._gates) > 2 * MOST_GATES):
                del self._gates[webhook_id]
            else:
                self._gates.move_to_end(webhook_id)


class Passage:
    """One attempt on its way through a gate, from `Gates.enter` to `leave`."""

    __slots__ = ("_few", "_gate", "_place", "_places", "_share", "_waited_s")

    def __init__(
        self, gate: Gate, share: Share, places: Places, place: Place, at: float, waited_s: float
    ) -> None:
        self._gate = gate
        self._share = share
        self._places = places
        self._place = place
        #: How long it waited for its server, and whether few others were in flight when it began.
        self._waited_s = waited_s
        self._few = gate.own.few
        gate.started[self] = share.origin.started[self] = at

    def leave(self, well: bool | None, at: float) -> None:
        """Leave; call this once. `well` says whether the endpoint did its work, None where no attempt was made."""
        gate = self._gate
        lasted = at - gate.started.pop(self)
        del self._share.origin.started[self]
        gate.users -= 1
        if well is None:
            gate.own.give_back()
        else:
            # Whoever waits for its server waits for it as much as for an answer.
            gate.takes.add(lasted + self._waited_s, at)
            if well:
                gate.own.answered(lasted, few=self._few and gate.own.few)
            else:
                gate.own.failed()
        self._share.give_back()
        self._places.leave(self._place)
