"""Busyness: for which part of the time this thread was at work, or would have been had a processor been free.

Where that is nearly all of it, messages wait for this process and for no endpoint.
"""

import time
from collections.abc import Callable
from pathlib import Path

from consumers.serving import Stop

#: Between two looks, in seconds.
LOOK_S = 0.1
#: Of a thread: nanoseconds on a processor, and those in which it waited for one (Linux, sched-stats.rst).
_SCHEDSTAT = Path("/proc/thread-self/schedstat")


def wanted_s() -> float:
    """Return for how many seconds this thread has wanted a processor; where only that is known, has had one."""
    try:
        ran, waited = _SCHEDSTAT.read_bytes().split()[:2]
        return (int(ran) + int(waited)) / 1e9
    except (OSError, ValueError):
        return time.thread_time()


class Busyness:
    """Knows how busy the thread of the event loop is. `run` is its task, in that thread; a process needs one."""

    def __init__(
        self, wanted: Callable[[], float] = wanted_s, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._wanted = wanted
        self._clock = clock
        self._before: tuple[float, float] | None = None
        self._last = 1.0
        #: The part of the time at work between two looks, from 0 to 1: the larger of the last two; 1 until known.
        self.part = 1.0

    def look(self) -> None:
        """Look how busy it was since the last look; one in whose midst a burst began tells too little by itself."""
        at, wanted = self._clock(), self._wanted()
        if self._before is not None and at > self._before[0]:
            now = min(1.0, max(0.0, (wanted - self._before[1]) / (at - self._before[0])))
            self.part, self._last = max(now, self._last), now
        self._before = at, wanted

    async def run(self, stop: Stop) -> None:
        """Look until told to stop."""
        self.look()
        while not await stop.sleep(LOOK_S):
            self.look()
