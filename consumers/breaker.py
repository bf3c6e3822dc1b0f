"""A circuit breaker: after many failures an endpoint is left alone, and one attempt at a time asks how it is.

How long it is left alone follows how long it has been away: an endpoint that was away for two minutes is asked
within 15 seconds of its return. Part of each wait is drawn, so that many endpoints that fail together, and come back
together, are asked one after the other.

Pure: whoever uses it brings the clock, in seconds that only go up, and the chance, from 0 to 1.
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
    #: How long it stays open after each failure, as a part of the time since it opened, but within these bounds, in
    #: seconds.
    part: float = 0.125
    open_s: float = 5.0
    longest_open_s: float = 60.0
    #: A probe that took long stays a rare one: after it the breaker stays open for at least so many times as long,
    #: up to the longest.
    after_probe: float = 2.0
    #: The part of each wait that is drawn ("equal jitter").
    jitter: float = 0.5


class Breaker:
    """Closed: all attempts may be made. Open: none. When the time is up: one, the probe, decides."""

    __slots__ = ("_failures", "_opened", "_outcomes", "_probe_began", "_tuning", "_until")

    def __init__(self, tuning: Tuning) -> None:
        self._tuning = tuning
        #: (when, whether it went well), from the first failure on: an endpoint that never fails costs nothing.
        self._outcomes: deque[tuple[float, bool]] | None = None
        self._failures = 0
        #: The moments when it opened and when the next probe may be made; None while it is closed.
        self._opened: float | None = None
        self._until: float | None = None
        #: When the probe that is under way began; None where there is none.
        self._probe_began: float | None = None

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
        if self._probe_began is not None:
            return max(self._until - at, 1.0)
        return max(0.0, self._until - at)

    def admit(self, at: float) -> Admission | None:
        """Ask to make an attempt; the first one admitted after the time is up is the probe.

        Whoever is admitted calls `record` or `abandon` afterwards.
        """
        if self._until is None:
            return "free"
        if self._probe_began is not None or at < self._until:
            return None
        self._probe_began = at
        return "probe"

    def abandon(self, admission: Admission) -> None:
        """Say that an attempt that was admitted was not made, or that nobody knows how it went."""
        if admission == "probe":
            self._probe_began = None

    def record(self, admission: Admission, well: bool, at: float, chance: float) -> Change | None:
        """Tell how an attempt went; returns what changed by it. `chance` places the next probe within its jitter."""
        if admission == "probe":
            return self._probed(well, at, chance)
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
            self._open(at, 0.0, chance)
            return "opened"
        return None

    def rest(self, seconds: float, at: float, chance: float) -> Change | None:
        """Leave the endpoint alone for as long as it asked, and a little longer by `chance`; a probe follows.

        Returns what changed by it.
        """
        was_closed = self._until is None
        if self._opened is None:
            self._opened = at
        spread_s = self._tuning.jitter * min(seconds, self._tuning.open_s)
        self._until = max(self._until or 0.0, at + seconds + chance * spread_s)
        self._probe_began = None
        return "opened" if was_closed else None

    def _open(self, at: float, probe_s: float, chance: float) -> None:
        if self._opened is None:
            self._opened = at
        tuning = self._tuning
        wait_s = max(tuning.part * (at - self._opened), tuning.after_probe * probe_s, tuning.open_s)
        wait_s = min(wait_s, tuning.longest_open_s)
        self._until = at + wait_s * (1 - tuning.jitter * chance)
        self._outcomes, self._failures, self._probe_began = None, 0, None

    def _probed(self, well: bool, at: float, chance: float) -> Change | None:
        began, self._probe_began = self._probe_began, None
        if self._until is None:
            return None
        if well:
            self._opened, self._until, self._outcomes, self._failures = None, None, None, 0
            return "closed"
        self._open(at, 0.0 if began is None else at - began, chance)
        return None
