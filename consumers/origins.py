"""Origins: how many attempts one server may have in flight at a time, whoever's webhooks lead to it.

Many webhooks with one URL are no way around the limit of each. Customers who share a server, such as one of a service
that many use, share its places: channels take turns, and none can hold all. A channel is given another place only
while it holds at most `HELD_TO_FREE` times as many as are free (dynamic thresholds, Choudhury and Hahne 1998): one
alone gets three quarters of them, two get three sevenths each, and whoever comes next finds some.
"""

from collections import deque
from collections.abc import Hashable, Mapping
from itertools import islice
from typing import Any
from weakref import WeakValueDictionary

from broker.registry.records import Webhook
from broker.webhook_url import WebhookUrl
from consumers.concurrency import Waiters
from consumers.http.opening import Origin
from consumers.limit import LEAST

#: How many places a channel may hold for each one that is free.
HELD_TO_FREE = 3


class Share:
    """One channel's part of what an origin may have in flight."""

    __slots__ = ("__weakref__", "held", "origin", "queued", "waiters")

    def __init__(self, origin: "OriginPlaces") -> None:
        self.origin = origin
        self.waiters = Waiters()
        #: The places that it has.
        self.held = 0
        #: True while it is among those whose turn comes.
        self.queued = False

    @property
    def fair(self) -> bool:
        """True where it may be given another place."""
        free = self.origin.free
        return free > 0 and self.held <= HELD_TO_FREE * free

    def take_now(self) -> bool:
        """Take a place where one is free and nobody of the channel waits; False otherwise."""
        origin = self.origin
        if not origin.free or self.held > HELD_TO_FREE * origin.free or self.waiters.waiting:
            return False
        self.held += 1
        origin.free -= 1
        return True

    async def take(self, within_s: float, since: float) -> bool:
        """Wait for a place, as `Waiters.wait` has it; channels take turns."""
        if self.take_now():
            return True
        self.origin.queue(self)
        self.origin.waiting += 1
        try:
            return await self.waiters.wait(within_s, since, self.give_back)
        finally:
            self.origin.waiting -= 1

    def give_back(self) -> None:
        """Give a place back."""
        self.held -= 1
        self.origin.free += 1
        if self.origin.turns:
            self.origin.serve()

    def give(self) -> bool:
        """Give a place to the one of the channel who has waited longest; False where nobody waits."""
        if not self.waiters.give():
            return False
        self.held += 1
        self.origin.free -= 1
        return True


class OriginPlaces:
    """The places of one origin."""

    __slots__ = ("__weakref__", "free", "shares", "started", "turns", "waiting")

    def __init__(self, most: int) -> None:
        self.free = most
        #: How many wait for a place.
        self.waiting = 0
        #: The attempts in flight, oldest first, each with the moment when it began.
        self.started: dict[Hashable, float] = {}
        #: By channel; kept for as long as somebody uses them.
        self.shares: WeakValueDictionary[str, Share] = WeakValueDictionary()
        #: Those that may have somebody waiting, in the order of their turns.
        self.turns: deque[Share] = deque()

    @property
    def room(self) -> int:
        """How many more lanes it makes sense to drain: a few in any case, so that they have their turn too."""
        return max(LEAST, self.free - self.waiting)

    def half_s(self, at: float) -> float:
        """Return for how many seconds half of the attempts in flight have lasted at least."""
        return half_s(self.started, at)

    def queue(self, share: Share) -> None:
        """Put a share where its turn comes."""
        if not share.queued:
            share.queued = True
            self.turns.append(share)

    def serve(self) -> None:
        """Give what is free to those who wait, a place to each channel in its turn."""
        passed_over = 0
        while self.free and passed_over < len(self.turns):
            share = self.turns.popleft()
            if not share.fair:
                # It holds so many that others come first.
                self.turns.append(share)
                passed_over += 1
            elif share.give():
                self.turns.append(share)
                passed_over = 0
            else:
                share.queued = False


class Origins:
    """Finds the share of a webhook in its origin's places. What nobody uses any more is forgotten."""

    def __init__(self, most_each: int) -> None:
        self._most_each = most_each
        self._places: WeakValueDictionary[Origin, OriginPlaces] = WeakValueDictionary()

    def share_of(self, webhook: Webhook) -> Share:
        """Return the share of a webhook's channel in its origin."""
        origin = origin_of(webhook.url)
        places = self._places.get(origin)
        if places is None:
            places = self._places[origin] = OriginPlaces(self._most_each)
        share = places.shares.get(webhook.channel_id)
        if share is None:
            share = places.shares[webhook.channel_id] = Share(places)
        return share


def half_s(started: Mapping[Any, float], at: float) -> float:
    """Return for how many seconds half of the attempts have lasted at least; they are given oldest first."""
    return at - next(islice(started.values(), len(started) // 2, None), at)


def origin_of(url: str) -> Origin:
    """Return the origin of a URL, however it writes the host; of one that cannot be posted to, one like no other."""
    try:
        found = WebhookUrl.of(url)
    except ValueError:
        return Origin(url, 0, tls=False)
    return Origin(found.host.lower().rstrip("."), found.port, found.tls)
