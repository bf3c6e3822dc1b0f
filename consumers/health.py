"""Health: a process whose event loop turns and whose queues are served writes a file each second.

For container engines, which ask a command and not a port. The file is named by POSTBOTE_HEALTH_FILE. One that is
old means that the process hangs; one that is not empty says what is wrong.
"""

import asyncio
import os
import time
from collections.abc import Callable
from pathlib import Path

#: How often the file is written, and how old it may be, in seconds.
BEAT_S, STALE_S = 1.0, 15.0
VARIABLE = "POSTBOTE_HEALTH_FILE"
#: A queue whose sessions failed so many times, each within so many seconds of the one before, is not served.
MOST_FAILURES, LASTED_S = 5, 60.0


class Health:
    """Knows which queues' sessions fail again and again. An outage is no failure: sessions wait for its end."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        #: By queue: how often its sessions failed, one soon after the other, and when the last one did.
        self._failures: dict[str, tuple[int, float]] = {}

    def failed(self, queue: str) -> None:
        """Note that a session of a queue failed."""
        now = self._clock()
        count, last = self._failures.get(queue, (0, now))
        self._failures[queue] = (count + 1 if now - last < LASTED_S else 1, now)

    def complaint(self) -> str:
        """Say which queues are not served; empty where all are."""
        now = self._clock()
        failing = [
            f"{queue} ({count} times)"
            for queue, (count, last) in sorted(self._failures.items())
            if count >= MOST_FAILURES and now - last < LASTED_S
        ]
        return f"Sessions fail again and again, see the log: {', '.join(failing)}." if failing else ""


async def beat(health: Health) -> None:
    """Write the file again and again, where one is named; ends by cancellation."""
    named = os.environ.get(VARIABLE)
    if not named:
        return
    # The command that asks, every few seconds, does without.
    import structlog

    log = structlog.get_logger()
    path, written = Path(named), True
    while True:
        try:
            await asyncio.to_thread(_write, path, health.complaint())
            written = True
        except OSError as error:
            # Told once. Of too many open files, for example: the next beat may come through.
            if written:
                log.warning("health.file_not_written", file=named, reason=error.strerror)
            written = False
        await asyncio.sleep(BEAT_S)


def _write(path: Path, complaint: str) -> None:
    if complaint or not path.exists() or path.stat().st_size:
        path.write_text(complaint)
    else:
        path.touch()


def complaint() -> str | None:
    """Say why the process that writes the file is not well; None where it is."""
    named = os.environ.get(VARIABLE)
    if not named:
        return f"{VARIABLE} names no file; set it to the same for the process and for this command."
    try:
        age = time.time() - Path(named).stat().st_mtime
        said = Path(named).read_text()
    except OSError as error:
        return f"{named}: {error.strerror}; no process has started here yet."
    if age >= STALE_S:
        return f"{named} is {age:.0f} s old: the process hangs, or has ended."
    return said or None
