"""A pace: no more than so many a second, evenly, first come first served. Whoever uses it brings the clock.

The generic cell rate algorithm (ITU-T I.371): one moment is kept, the one at which the next may go. Who waits has no
moment of their own, so another rate holds at once for those who wait, and one who leaves holds up nobody.
"""

import asyncio
from collections import deque
from collections.abc import Callable

from broker.registry.records import LEAST_RATE_LIMIT

#: How much of a second's number may go at once after a rest.
BURST_S = 0.1
#: Whoever would wait for longer than this for a turn waits in the backlog, in seconds.
LONGEST_TURN_S = 10.0
#: No rate is lower, in turns a second, whatever stands in the registry.
LEAST_RATE = LEAST_RATE_LIMIT / 100


class Pace:
    """Hands out turns."""

    __slots__ = ("_clock", "_next", "_rate", "_timer", "_waiting")

    def __init__(self, rate: float, clock: Callable[[], float]) -> None:
        self._rate = max(rate, LEAST_RATE)
        self._clock = clock
        self._next = float("-inf")
        self._waiting: deque[Turn] = deque()
        self._timer: asyncio.TimerHandle | None = None

    @property
    def rate(self) -> float:
        """How many go in a second."""
        return self._rate

    @rate.setter
    def rate(self, rate: float) -> None:
        rate = max(rate, LEAST_RATE)
        if rate == self._rate:
            return
        at = self._clock()
        if self._next > at:
            # What is left of the wait between two is as much of it as before.
            self._next = at + (self._next - at) * self._rate / rate
        self._rate = rate
        self._hand_out()

    def wait_s(self, at: float) -> float:
        """Return how long the next one to come would have to wait, in seconds."""
        return max(0.0, self._next - at) + len(self._waiting) / self._rate

    def turn(self) -> "Turn":
        """Queue up for a turn, which comes at once where nobody has to wait."""
        turn = Turn(self)
        self._waiting.append(turn)
        self._hand_out()
        return turn

    def give_back(self, turn: "Turn") -> None:
        """Let another have a turn that was not used; see `Turn.leave`."""
        if turn.come.done():
            self._next -= 1 / self._rate
        else:
            turn.come.cancel()
            self._waiting.remove(turn)
        self._hand_out()

    def _take(self, at: float) -> None:
        self._next = max(self._next, at - BURST_S) + 1 / self._rate

    def _hand_out(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        at = self._clock()
        while self._waiting and self._next <= at:
            self._take(at)
            self._waiting.popleft().come.set_result(None)
        if self._waiting:
            self._timer = asyncio.get_running_loop().call_later(self._next - at, self._hand_out)


class Turn:
    """A place in the queue of a pace, and later the right to go."""

    __slots__ = ("_left", "come", "pace")

    def __init__(self, pace: Pace) -> None:
        self.pace = pace
        #: Done when it is one's turn.
        self.come: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._left = False

    def leave(self) -> None:
        """Give it up unused, before it came or after. May be called more than once."""
        if not self._left:
            self._left = True
            self.pace.give_back(self)
