"""A pace: no more than so many a second, evenly. Pure: whoever uses it brings the clock.

The generic cell rate algorithm (ITU-T I.371): one moment is kept, the one at which the next may go.
"""

#: How much of a second's number may go at once after a rest.
BURST_S = 0.1


class Pace:
    """Hands out moments, first come first served."""

    __slots__ = ("_next", "rate")

    def __init__(self, rate: float) -> None:
        #: How many a second; may be changed at any time.
        self.rate = rate
        self._next = float("-inf")

    def wait_s(self, at: float) -> float:
        """Return how long the next one would have to wait, in seconds."""
        return max(0.0, self._next - at)

    def take(self, at: float) -> float:
        """Take the next moment, and return how long to wait for it, in seconds."""
        moment = max(self._next, at - BURST_S)
        self._next = moment + 1 / self.rate
        return max(0.0, moment - at)
