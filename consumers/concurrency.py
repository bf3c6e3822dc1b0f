"""Concurrency: how many attempts at a time an endpoint has shown that it can take.

Additive increase, multiplicative decrease, as TCP has it (RFC 5681): a new endpoint begins with a few, each quick
answer allows one more, each failure and each slow answer halves it. So an endpoint that hangs from the start, or
begins to, holds little of what all share.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from heapq import heappop, heappush
from itertools import count

#: What every endpoint may have in flight, whatever it did.
LEAST = 4
#: Of those who wait, so many are told at a time to look whether to wait on: many lanes may wait for an endpoint that
#: hangs, and were all to look at once, everybody else's deliveries would wait for them.
ASKED_AT_ONCE = 8

_numbers = count()


class Waiters:
    """Those who wait for places: each is given one in its turn, or told to look whether to wait on."""

    __slots__ = ("_asking", "_order", "waiting")

    def __init__(self) -> None:
        #: Who waits, in the order in which they are asked whether to wait on.
        self.waiting: OrderedDict[asyncio.Future[bool], None] = OrderedDict()
        #: The same, oldest first; some may not wait any more.
        self._order: list[tuple[float, int, asyncio.Future[bool]]] = []
        self._asking: asyncio.TimerHandle | None = None

    async def wait(self, within_s: float, since: float, give_back: Callable[[], None]) -> bool:
        """Wait to be given a place, after those who have waited from before `since`.

        False without one after `within_s` seconds, or later where many wait. A place that is given at the moment in
        which nobody wants it any more is given back.
        """
        loop = asyncio.get_running_loop()
        given: asyncio.Future[bool] = loop.create_future()
        self.waiting[given] = None
        heappush(self._order, (since, next(_numbers), given))
        if self._asking is None:
            self._asking = loop.call_later(within_s, self._ask_some, within_s)
        try:
            return await given
        except asyncio.CancelledError:
            if given.cancelled():
                self.waiting.pop(given, None)
            elif given.result():
                give_back()
            raise

    def give(self) -> bool:
        """Give a place to the one who has waited longest; False where nobody waits."""
        while self.waiting:
            _, _, given = heappop(self._order)
            if given in self.waiting:
                del self.waiting[given]
                if not given.done():
                    given.set_result(True)
                    return True
        self._order.clear()
        return False

    def ask(self, number: int = 1) -> None:
        """Tell so many of those who wait to look whether to wait on; one who does not, asks the next."""
        for _ in range(min(number, len(self.waiting))):
            given, _ = self.waiting.popitem(last=False)
            if not given.done():
                given.set_result(False)

    def _ask_some(self, within_s: float) -> None:
        # One timer for all, however many wait.
        self.ask(ASKED_AT_ONCE)
        self._asking = None
        if self.waiting:
            self._asking = asyncio.get_running_loop().call_later(within_s, self._ask_some, within_s)


class Concurrency:
    """Hands out an endpoint's own places, to whoever has waited longest.

    What came first is settled first then, within what lanes allow, and few acknowledgements wait for older ones.
    """

    __slots__ = ("_least", "_most", "_waiters", "limit", "taken")

    def __init__(self, most: int) -> None:
        self._most = most
        self._least = min(LEAST, most)
        self._waiters = Waiters()
        #: How many may be in flight now.
        self.limit = float(self._least)
        self.taken = 0

    def take_now(self) -> bool:
        """Take a place where one is free and nobody waits; False otherwise."""
        if self.taken < int(self.limit) and not self._waiters.waiting:
            self.taken += 1
            return True
        return False

    async def take(self, within_s: float, since: float = 0.0) -> bool:
        """Wait for a place, as `Waiters.wait` has it."""
        return self.take_now() or await self._waiters.wait(within_s, since, self._leave)

    def give_back(self, well: bool | None) -> None:
        """Give a place back; `well` says whether the answer was quick and good, None where none was asked for."""
        if well:
            self.limit = min(float(self._most), self.limit + 1)
        elif well is not None:
            self.limit = max(float(self._least), self.limit / 2)
        self._leave()

    def ask(self) -> None:
        """Tell one of those who wait to look whether to wait on."""
        self._waiters.ask()

    def _leave(self) -> None:
        self.taken -= 1
        while self._waiters.waiting and self.taken < int(self.limit) and self._waiters.give():
            self.taken += 1
