"""Concurrency: an endpoint's own places for attempts, no more than its limit, and no more than others leave free."""

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from heapq import heappop, heappush
from itertools import count

from consumers.limit import LEAST, Limit

#: Beyond `LEAST` it may hold so many places for each one that is spare among those that all endpoints share.
HELD_TO_SPARE = 3
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

    __slots__ = ("_limit", "_spare", "_waiters", "taken")

    def __init__(self, most: int, spare: Callable[[], int]) -> None:
        self._limit = Limit(most)
        #: Tells how many places are spare among those that all endpoints share.
        self._spare = spare
        self._waiters = Waiters()
        self.taken = 0

    @property
    def limit(self) -> float:
        """How many the endpoint may have in flight now, for its own part."""
        return self._limit.now

    @property
    def expected(self) -> float:
        """How many it may be expected to come to; see `Limit.expected`."""
        return self._limit.expected

    @property
    def few(self) -> bool:
        """True while so few are in flight that they do not wait for each other."""
        return self.taken <= LEAST

    def take_now(self) -> bool:
        """Take a place where one is free and nobody waits; False otherwise."""
        if not self._waiters.waiting and self._free:
            self.taken += 1
            return True
        return False

    async def take(self, within_s: float, since: float = 0.0) -> bool:
        """Wait for a place, as `Waiters.wait` has it."""
        return self.take_now() or await self._waiters.wait(within_s, since, self._leave)

    def answered(self, lasted_s: float, *, few: bool) -> None:
        """Give a place back whose attempt was answered; see `Limit.answered`."""
        self._limit.answered(lasted_s, few=few)
        self._leave()

    def failed(self) -> None:
        """Give a place back whose attempt failed."""
        self._limit.failed()
        self._leave()

    def give_back(self) -> None:
        """Give a place back that no attempt was made with."""
        self._leave()

    def ask(self) -> None:
        """Tell one of those who wait to look whether to wait on."""
        self._waiters.ask()

    @property
    def _free(self) -> bool:
        # Whatever is spare, it has a few: so one of its own leaves soon, and what others left free is found then.
        return self.taken < int(self._limit.now) and (
            self.taken < LEAST or self.taken < HELD_TO_SPARE * self._spare()
        )

    def _leave(self) -> None:
        self.taken -= 1
        while self._waiters.waiting and self._free and self._waiters.give():
            self.taken += 1
