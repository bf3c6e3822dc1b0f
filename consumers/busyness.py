"""Busyness: how much this process itself makes messages wait.

For which part of the time its thread was at work, or would have been had a processor been free; and how late it is
with what it has to do. Where it is late, an endpoint's answer seems to come later by about twice as much: it waits
until it is read, and then until somebody goes on with it.
"""

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

from consumers.serving import Stop

#: Between two looks, in seconds.
LOOK_S = 0.1
#: How often an attempt waits for this process.
WAITS = 2
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
        self._last = (1.0, 0.0)
        #: The part of the time at work between two looks, from 0 to 1: the larger of the last two; 1 until known.
        self.part = 1.0
        #: By how much an attempt seems to take longer than it does, in seconds, by the larger of the last two.
        self.adds_s = 0.0

    def look(self) -> None:
        """Look how busy it was since the last look; one in whose midst a burst began tells too little by itself."""
        at, wanted = self._clock(), self._wanted()
        if self._before is not None and at > self._before[0]:
            lasted_s = at - self._before[0]
            part = min(1.0, max(0.0, (wanted - self._before[1]) / lasted_s))
            adds_s = WAITS * max(0.0, lasted_s - LOOK_S)
            self.part, self.adds_s = max(part, self._last[0]), max(adds_s, self._last[1])
            self._last = part, adds_s
        self._before = at, wanted

    async def run(self, stop: Stop) -> None:
        """Look until told to stop."""
        loop = asyncio.get_running_loop()
        timer: asyncio.TimerHandle

        def again() -> None:
            # By a timer alone: a task would go on after those who were late as well.
            nonlocal timer
            self.look()
            timer = loop.call_later(LOOK_S, again)

        again()
        try:
            await stop.wait()
        finally:
            timer.cancel()
