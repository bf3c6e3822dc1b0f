"""An average of what was measured lately, however much that was: a stall of a moment does not outweigh the rest."""


class Average:
    """The mean of what was added within the last `window_s` seconds, up to twice as many. Bring the clock."""

    __slots__ = ("_before", "_number", "_since", "_sum", "_window_s", "ever")

    def __init__(self, window_s: float) -> None:
        self._window_s = window_s
        self._since = float("-inf")
        self._sum, self._number = 0.0, 0
        #: The same of the window before this one.
        self._before = (0.0, 0)
        #: How many were added in all.
        self.ever = 0

    def add(self, value: float, at: float) -> None:
        """Add what was measured at that moment."""
        self.ever += 1
        if at - self._since >= self._window_s:
            self._before, self._since = (self._sum, self._number), at
            self._sum, self._number = value, 1
        else:
            self._sum += value
            self._number += 1

    @property
    def mean(self) -> float:
        """The mean, of what was measured last where nothing was lately; 0 where nothing ever was."""
        sum_, number = self._before
        return (self._sum + sum_) / (self._number + number) if self._number else 0.0
