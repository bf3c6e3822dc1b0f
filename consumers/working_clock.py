"""A clock that stands still while this process does: what an endpoint is blamed for is not our own pause.

A process that was stopped, or a machine that slept, would find every attempt in flight to be old, and take all
endpoints for slow.
"""

import time
from collections.abc import Callable

from consumers.serving import Stop

#: Between two ticks, in seconds.
TICK_S = 0.25
#: Without a tick for so long the process did not run; what a busy one is late by is less.
STOPPED_S = 1.0


class WorkingClock:
    """Tells the time in seconds, like `time.monotonic`, less what the process did not run. `run` is its task."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._ticked = clock()
        self._stopped_s = 0.0

    def __call__(self) -> float:
        """Tell the time."""
        now = self._clock()
        if now - self._ticked > STOPPED_S:
            self._stopped_s += now - self._ticked - TICK_S
            self._ticked = now
        return now - self._stopped_s

    def tick(self) -> None:
        """Note that the process runs; call this every `TICK_S`."""
        self()
        self._ticked = self._clock()

    async def run(self, stop: Stop) -> None:
        """Tick until told to stop."""
        while not await stop.sleep(TICK_S):
            self.tick()
