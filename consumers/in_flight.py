"""Places for attempts in flight: first tries before retries, and none kept for long by an endpoint that hangs."""

import asyncio
from collections import deque

#: Of so many places that become free while both wait, one goes to a retry.
A_RETRY_IN = 8
#: An attempt that has no answer after this many seconds waits on without a place, for waiting costs no work.
PATIENCE_S = 1.0


class Places:
    """Hands out places. A place is held by an attempt until its answer comes, or for `PATIENCE_S`.

    At most `most_hanging` attempts wait on without a place: beyond that the places are held to the end, and
    bound the sockets.
    """

    def __init__(self, most: int, most_hanging: int) -> None:
        self._free = most
        self._most_hanging = most_hanging
        self._first: deque[asyncio.Future[None]] = deque()
        self._retries: deque[asyncio.Future[None]] = deque()
        self._given = 0
        self.hanging = 0

    async def take(self, *, first: bool) -> "Place":
        """Wait for a place."""
        if self._free and not self._first and (first or not self._retries):
            self._free -= 1
            return Place(self)
        free: asyncio.Future[None] = asyncio.get_running_loop().create_future()
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
        return Place(self)

    def give_back(self) -> None:
        """Give a place to who waits next, or keep it free."""
        while waiter := self._next():
            if not waiter.done():
                self._given += 1
                waiter.set_result(None)
                return
        self._free += 1

    def may_hang(self) -> bool:
        """Let one more attempt go on waiting without a place, where that is within the bound."""
        if self.hanging >= self._most_hanging:
            return False
        self.hanging += 1
        return True

    def _next(self) -> asyncio.Future[None] | None:
        retries_turn = self._given % A_RETRY_IN == A_RETRY_IN - 1
        if self._retries and (retries_turn or not self._first):
            return self._retries.popleft()
        return self._first.popleft() if self._first else None


class Place:
    """One place, from being taken to `leave`."""

    __slots__ = ("_hanging", "_places", "_timer")

    def __init__(self, places: Places) -> None:
        self._places = places
        self._hanging = False
        self._timer = asyncio.get_running_loop().call_later(PATIENCE_S, self._grow_patient)

    def leave(self) -> None:
        """Leave it; call this once."""
        self._timer.cancel()
        if self._hanging:
            self._places.hanging -= 1
        else:
            self._places.give_back()

    def _grow_patient(self) -> None:
        if self._places.may_hang():
            self._hanging = True
            self._places.give_back()
