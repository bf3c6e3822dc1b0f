"""Limit: how many attempts at a time an endpoint has shown that it can take. Pure.

Additive increase, multiplicative decrease, as TCP has it (RFC 5681): a new endpoint begins with a few, each answer
allows one more, each failure halves it. An endpoint that only takes its time is not held back for that. One that
takes the longer the more it has at once does its work no faster for having more: how long it takes is compared with
how long it takes when it has few (TCP Vegas, Brakmo and Peterson 1995), and its limit falls in proportion.
"""

#: What every endpoint may have in flight, whatever it did.
LEAST = 4
#: So many times as long, and so many seconds more, an endpoint may take with many in flight as with few.
LONGER_TIMES, LONGER_S = 1.5, 0.25
#: By how much each answer moves what is usual towards itself: a single one that took very long tells little.
STEP_ALL, STEP_FEW = 1.1, 1.2
#: What is usual is never less, in seconds.
SHORTEST_S = 0.001


class Limit:
    """The limit of one endpoint."""

    __slots__ = ("_all_s", "_few_s", "_least", "_lowered", "_most", "_unheard", "now")

    def __init__(self, most: int) -> None:
        self._most = float(most)
        self._least = float(min(LEAST, most))
        #: How many may be in flight now; its whole part counts.
        self.now = self._least
        #: How long answers take usually, all of them and those with few others in flight, in seconds; 0: unknown.
        self._all_s = self._few_s = 0.0
        #: So many answers belong to attempts that were begun under a higher limit, and tell nothing about this one.
        self._unheard = 0
        self._lowered = False

    @property
    def expected(self) -> float:
        """What it comes to, as things are: all places, unless it had to be lowered and has not recovered."""
        return self.now if self._lowered else self._most

    def failed(self) -> None:
        """Note a failed attempt."""
        self.now = max(self._least, self.now / 2)
        self._lowered = True

    def answered(self, lasted_s: float, *, few: bool) -> None:
        """Note an answer, the seconds that it took, and whether few others were in flight meanwhile."""
        if not (0.0 < self._all_s <= LONGER_S and lasted_s <= LONGER_S and self._few_s <= LONGER_S):
            # Where all of them are as short as this, it makes no difference how short.
            self._all_s = _towards(self._all_s, lasted_s, STEP_ALL)
            if few:
                self._few_s = _towards(self._few_s, lasted_s, STEP_FEW)
        if self._unheard:
            self._unheard -= 1
            return
        allowed_s = LONGER_TIMES * self._few_s + LONGER_S
        if self._all_s <= allowed_s:
            self.now = min(self._most, self.now + 1)
            if self.now == self._most:
                self._lowered = False
        elif self.now > self._least:
            self._unheard = int(self.now)
            self._lowered = True
            self.now = max(self._least, self.now * max(0.5, allowed_s / self._all_s))


def _towards(usual_s: float, lasted_s: float, step: float) -> float:
    if not usual_s:
        return max(SHORTEST_S, lasted_s)
    return usual_s * step if lasted_s > usual_s else max(SHORTEST_S, usual_s / step)
