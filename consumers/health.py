"""Health: a process whose event loop turns touches a file each second; one whose file is old is unhealthy.

For container engines, which ask a command and not a port. The file is named by POSTBOTE_HEALTH_FILE.
"""

import asyncio
import os
import time
from pathlib import Path

#: How often the file is touched, and how old it may be, in seconds.
BEAT_S, STALE_S = 1.0, 15.0
VARIABLE = "POSTBOTE_HEALTH_FILE"


async def beat() -> None:
    """Touch the file again and again, where one is named; ends by cancellation."""
    named = os.environ.get(VARIABLE)
    if not named:
        return
    # The command that asks, every few seconds, does without.
    import structlog

    log = structlog.get_logger()
    path = Path(named)
    well = True
    while True:
        try:
            await asyncio.to_thread(path.touch)
            well = True
        except OSError as error:
            # Told once; a container engine will find the file old, and no reason for it.
            if well:
                log.warning("health.file_not_written", file=named, reason=error.strerror)
            well = False
        await asyncio.sleep(BEAT_S)


def complaint() -> str | None:
    """Say why the process that touches the file is not well; None where it is."""
    named = os.environ.get(VARIABLE)
    if not named:
        return f"{VARIABLE} names no file; set it to the same for the process and for this command."
    try:
        age = time.time() - Path(named).stat().st_mtime
    except OSError as error:
        return f"{named}: {error.strerror}; no process has started here yet."
    return None if age < STALE_S else f"{named} is {age:.0f} s old: the process hangs, or has ended."
