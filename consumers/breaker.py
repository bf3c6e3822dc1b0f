"""A circuit breaker: after many failures an endpoint is left alone, and one attempt at a time asks how it is.

Pure: whoever uses it brings the clock, in seconds that only go up.
"""

from collections import deque
from dataclasses import dataclass
from typing import Literal

Change = Literal["opened", "closed"]
#: How an attempt was let through: as one of many, or as the one that asks how the endpoint is.
Admission = Literal["free", "probe"]


@dataclass(frozen=True, slots=True)
class Tuning:
    """When a breaker opens, and for how long."""

    #: How many of the last outcomes count, and for how long each does, in seconds.
    window: int = 20
    memory_s: float = 120.0
    #: It opens where at least so many are known, and at least this fraction of them are failures: an endpoint
    #: that takes every other delivery is worth trying on.
    least: int = 10
    rate: float = 0.75
    #: How long it stays open at first, in seconds; doubled with every probe that fails, up to the longest.
    open_s: float = 5.0
    longest_open_s: float = 60.0


class Breaker:
    """Closed: all attempts may be made. Open: none. When the time is up: one, the probe, decides."""

    __slots__ = ("_failures", "_open_s", "_outcomes", "_probing", "_tuning", "_until")

    def __init__(self, tuning: Tuning) -> None:
        self._tuning = tuning
        #: (when, whether it went well), from the first failure on: an endpoint that never fails costs nothing.
        self._outcomes: deque[tuple[float, bool]] | None = None
        self._failures = 0
        self._until: float | None = None
        self._open_s = tuning.open_s
        self._probing = False

    @property
    def closed(self) -> bool:
        """True while attempts may be made freely."""
        return self._until is None

    @property
    def idle(self) -> bool:
        """True where nothing would be lost if it were made anew."""
        return self._until is None and self._outcomes is None

    def wait_s(self, at: float) -> float:
        """Return how long to wait before asking again, in seconds: 0 where an attempt may be made now."""
        if self._until is None:
            return 0.0
        if self._probing:
            return max(self._until - at, 1.0)
        return max(0.0, self._until - at)

    def admit(self, at: float) -> Admission | None:
        """Ask to make an attempt; the first one admitted after the time is up is the probe.

        Whoever is admitted calls `record` or `abandon` afterwards.
        """
        if self._until is None:
            return "free"
        if self._probing or at < self._until:
            return None
        self._probing = True
        return "probe"

    def abandon(self, admission: Admission) -> None:
        """Say that an attempt that was admitted was not made, or that nobody knows how it went."""
        if admission == "probe":
            self._probing = False

    def record(self, admission: Admission, well: bool, at: float) -> Change | None:
        """Tell how an attempt went; returns what changed by it."""
        if admission == "probe":
            return self._probed(well, at)
        if self._until is not None:
            # It began before the breaker opened, and tells nothing new.
            return None
        if self._outcomes is None:
            if well:
                return None
            self._outcomes = deque()
        self._outcomes.append((at, well))
        self._failures += not well
        while len(self._outcomes) > self._tuning.window or at - self._outcomes[0][0] > self._tuning.memory_s:
            self._failures -= not self._outcomes.popleft()[1]
        if not self._failures:
            self._outcomes = None
            return None
        known = len(self._outcomes)
        if not well and known >= self._tuning.least and self._failures >= self._tuning.rate * known:
            self._open(at)
            return "opened"
        return None

    def rest(self, seconds: float, at: float) -> Change | None:
        """Leave the endpoint alone for as long as it asked; a probe follows. Returns what changed by it."""
        was_closed = self._until is None
        self._until = max(self._until or 0.0, at + seconds)
        self._probing = False
        return "opened" if was_closed else None

    def _open(self, at: float) -> None:
        self._until = at + self._open_s
        self._outcomes, self._failures, self._probing = None, 0, False

    def _probed(self, well: bool, at: float) -> Change | None:
        self._probing = False
        if self._until is None:
            return None
        if well:
            self._until, self._outcomes, self._failures = None, None, 0
            self._open_s = self._tuning.open_s
            return "closed"
        self._open_s = min(self._open_s * 2, self._tuning.longest_open_s)
        self._open(at)
        return None
