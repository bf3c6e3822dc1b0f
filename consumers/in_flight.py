"""Places for attempts in flight: first tries before retries, and none kept for long by an endpoint that hangs."""

import asyncio
from collections import deque

#: Of so many places that become free while both wait, one goes to a retry.
A_RETRY_IN = 8
#: An attempt that has no answer after this many seconds waits on without a place, for waiting costs no work.
PATIENCE_S = 1.0
#: Of so many more that may hang, one counts as a place to spare.
HANGING_TO_SPARE = 8


class Places:
    """Hands out places. A place is held by an attempt until its answer comes, or for `PATIENCE_S`.

    At most `most_hanging` attempts wait on without a place: beyond that the places are held to the end, and
    bound the sockets.
    """

    def __init__(self, most: int, most_hanging: int) -> None:
        self._loop = asyncio.get_running_loop()
        self._free = most
        self._most_hanging = most_hanging
        self._first: deque[asyncio.Future[None]] = deque()
        self._retries: deque[asyncio.Future[None]] = deque()
        self._given = 0
        #: The places that are taken and whose attempts began a moment ago, the oldest first, with when they did.
        self._held: dict[Place, float] = {}
        self._looking: asyncio.TimerHandle | None = None
        self.hanging = 0

    def spare(self) -> int:
        """Return how many places there are to spare; fewer, too, where many hang already."""
        if not self._most_hanging:
            return self._free
        return min(self._free, (self._most_hanging - self.hanging) // HANGING_TO_SPARE)

    async def take(self, *, first: bool) -> "Place":
        """Wait for a place."""
        place = self.take_now(first=first)
        if place is not None:
            return place
        free: asyncio.Future[None] = self._loop.create_future()
        queue = self._first if first else self._retries
        queue.append(free)
        try:
            await free
        except asyncio.CancelledError:
            if free.done() and not free.cancelled():
                self.give_back()
            else:
                queue.remove(free)
            raise
        return self._hold()

    def take_now(self, *, first: bool) -> "Place | None":
        """Take a place where one is free and nobody waits before; None otherwise."""
        if self._free and not self._first and (first or not self._retries):
            self._free -= 1
            return self._hold()
        return None

    def leave(self, place: "Place") -> None:
        """Leave a place; call this once for each."""
        if self._held.pop(place, None) is None and place.hanging:
            self.hanging -= 1
        else:
            self.give_back()

    def give_back(self) -> None:
        """Give a place to who waits next, or keep it free."""
        while waiter := self._next():
            if not waiter.done():
                self._given += 1
                waiter.set_result(None)
                return
        self._free += 1

    def _hold(self) -> "Place":
        place = Place()
        self._held[place] = self._loop.time()
        if self._looking is None:
            self._looking = self._loop.call_later(PATIENCE_S, self._look)
        return place

    def _look(self) -> None:
        # One timer for all places: attempts that take long are rare, and a timer each is not free.
        self._looking = None
        patient = self._loop.time() - PATIENCE_S
        while self._held:
            place, since = next(iter(self._held.items()))
            if since > patient:
                self._looking = self._loop.call_later(since - patient, self._look)
                return
            del self._held[place]
            # Beyond the bound an attempt keeps its place to the end.
            if self.hanging < self._most_hanging:
                place.hanging = True
                self.hanging += 1
                self.give_back()

    def _next(self) -> asyncio.Future[None] | None:
        retries_turn = self._given % A_RETRY_IN == A_RETRY_IN - 1
        if self._retries and (retries_turn or not self._first):
            return self._retries.popleft()
        return self._first.popleft() if self._first else None


class Place:
    """One place, from `take` to `Places.leave`."""

    __slots__ = ("hanging",)

    def __init__(self) -> None:
        #: True where its attempt waits on without it.
        self.hanging = False
