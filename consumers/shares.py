"""Shares: who gives way where a partition's prefetch runs short.

An owner is whoever makes messages wait: a webhook before deliveries, a channel before its bot. While many places of
the prefetch are free, anybody may hold any number. Where they run short, a lane gives way, which means that it waits
outside of memory, where it holds more than its part: as many places as are free, and the fewer of them the longer
they would be held (dynamic thresholds, Choudhury and Hahne 1998, with a threshold that falls with time). The same
holds for all lanes of an owner together; then those give way that hold at least as much as the owner's others, so
that a quiet conversation does not pay for a hot one beside it. Whatever is settled within a patience never gives way.

Pure: whoever uses it says how long things take, in seconds.
"""

#: Nothing is short while no more than one place in so many is taken.
SHORT_FROM = 4
#: However few places are free, a part is reckoned as if at least one in so many were: a single message does not
#: give way because others fill the prefetch.
RECKONED_FREE = 64
#: What is settled within this many seconds never gives way.
PATIENCE_S = 0.5
#: Where places have been short for less than so long, in seconds, nobody knows yet how busy the process is by that.
KNOWN_AFTER_S = 0.2
#: The same where this process itself is what all wait for: it would only have more to do. With all of its prefetch in
#: hand and one processor for it, a worker needs about a second for it on a slow machine.
BUSY_PATIENCE_S = 5.0
#: From this part of the time at work on the patience grows, and up to that one.
BUSY_FROM, BUSY_TO = 0.7, 0.9


class Shares:
    """Counts what a partition has in hand, by owner, and tells who gives way."""

    __slots__ = ("_held", "_lanes", "_least", "_places", "_short_from", "_short_since", "taken")

    def __init__(self, places: int) -> None:
        self._places = places
        self._short_from = places // SHORT_FROM
        self._least = max(1, places // RECKONED_FREE)
        self._short_since: float | None = None
        #: Places that are taken by messages which are not acknowledged yet; a heavy one takes several.
        self.taken = 0
        #: By owner: the places that its messages take, and its lanes that have any. Nothing is kept of one without.
        self._held: dict[str, int] = {}
        self._lanes: dict[str, int] = {}

    def take(self, count: int = 1) -> None:
        """Note a message in hand, which takes so many places, whoever waits for it."""
        self.taken += count

    def give_back(self, count: int = 1) -> None:
        """Note that a message is acknowledged."""
        self.taken -= count
        if self.taken <= self._short_from:
            self._short_since = None

    def hold(self, owner: str, count: int = 1, *, new_lane: bool) -> None:
        """Note that a message waits for an owner, in a lane that had none or in one that had some."""
        held = self._held
        held[owner] = held.get(owner, 0) + count
        if new_lane:
            self._lanes[owner] = self._lanes.get(owner, 0) + 1

    def let_go(self, owner: str, count: int = 1, *, lane_ended: bool) -> None:
        """Note that an owner is done with a message, and whether it was the last of its lane."""
        self._held[owner] -= count
        if lane_ended:
            self._lanes[owner] -= 1
            if not self._lanes[owner]:
                del self._held[owner], self._lanes[owner]

    def held(self, owner: str) -> int:
        """Return how many places the messages of an owner take."""
        return self._held.get(owner, 0)

    def owners(self) -> list[str]:
        """Return who holds any."""
        return list(self._held)

    @property
    def short(self) -> bool:
        """True where it is worth asking who gives way."""
        return self.taken > self._short_from

    def gives_way(self, owner: str, lane: int, lane_s: float, owner_s: float, patience_s: float) -> bool:
        """Tell whether a lane gives way.

        It takes `lane` places and is settled, as far as is known, within `lane_s` seconds; what comes to its owner
        now, within `owner_s`.
        """
        if self.taken <= self._short_from:
            return False
        # Of a place that is held for longer there may be fewer.
        part = max(self._places - self.taken, self._least) * PATIENCE_S
        if lane_s > patience_s and lane * lane_s > part:
            return True
        if owner_s <= patience_s:
            return False
        held = self._held.get(owner, 0)
        return held * owner_s > part and lane * self._lanes.get(owner, 1) >= held

    def room(self, owner: str, owner_s: float) -> int:
        """Return how many more places an owner may take that nobody has asked for yet, with what waits elsewhere.

        No more than its part, and no more than is taken before anything is short. At least one where it has none, so
        that what waits goes on; but none while all together hold twice the prefetch.
        """
        if sum(self._held.values()) >= 2 * self._places:
            return 0
        free = max(self._places - self.taken, self._least)
        part = free if owner_s <= PATIENCE_S else int(free * PATIENCE_S / owner_s)
        held = self._held.get(owner, 0)
        return max(min(part, self._short_from) - held, 0 if held else 1)

    def patience_s(self, at: float, busy: float) -> float:
        """Return how long a lane may take without giving way; `busy` is the part of the time at work."""
        if self._short_since is None:
            self._short_since = at
        return patience_s(busy if at - self._short_since >= KNOWN_AFTER_S else 1.0)


def patience_s(busy: float) -> float:
    """Return how long a lane may take without giving way, for a process that is at work for that part of the time."""
    over = min(1.0, max(0.0, (busy - BUSY_FROM) / (BUSY_TO - BUSY_FROM)))
    return PATIENCE_S + over * (BUSY_PATIENCE_S - PATIENCE_S)
