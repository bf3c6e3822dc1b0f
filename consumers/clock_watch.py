"""Notices that the wall clock was set back. Pure: whoever uses it brings the clocks.

Moments at which something is due are kept in the time of the wall clock, since workers come and go. Set back by an
hour, it would make all that waits wait for that hour.
"""

#: A step back of the clock by more than this is looked into, in seconds.
STEP_BACK_S = 1.0
#: After such a step it is looked into again so often, in seconds.
ASK_AGAIN_S = 5.0


class ClockWatch:
    """Tells whether lanes may have been written by a wall clock that has been set back since."""

    def __init__(self, written_within_s: float) -> None:
        self._written_within_s = written_within_s
        self._ahead_s = float("inf")
        self._ask_at_s = float("inf")
        self._ask_until_s = 0.0

    def set_back(self, wall_s: float, monotonic_s: float) -> bool:
        """Ask, telling both clocks. True at the first question, at each step back, and for a while after one.

        For a while, `written_within_s`, because what was reckoned before the step may be written after it.
        """
        before, self._ahead_s = self._ahead_s, wall_s - monotonic_s
        if before - self._ahead_s > STEP_BACK_S:
            self._ask_at_s = monotonic_s
            self._ask_until_s = monotonic_s + (self._written_within_s if before < float("inf") else 0.0)
        if monotonic_s < self._ask_at_s:
            return False
        self._ask_at_s = monotonic_s + ASK_AGAIN_S if monotonic_s < self._ask_until_s else float("inf")
        return True
