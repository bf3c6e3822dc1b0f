"""Ending: work that must not be left running is waited for, whoever is cancelled meanwhile.

A write that is given up may still take place. Whoever goes on without waiting for its end reads what was there
before it, and is overtaken by it.
"""

import asyncio
from collections.abc import Coroutine
from typing import Any

#: How long to wait for the end of a write that is given up, in seconds. It takes a round trip; longer only where the
#: other side is out of reach or stands still, and a process that stops has 10 seconds in all.
END_S = 2.0


async def to_its_end(work: Coroutine[Any, Any, object]) -> None:
    """Do work to its end, whatever comes of it, and however often whoever waits is cancelled meanwhile.

    Raises CancelledError after that end where it was cancelled. The work bounds its own time.
    """
    task = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError as error:
            cancelled = error
    if not task.cancelled():
        # Looked at, so that nobody reports it as forgotten.
        task.exception()
    if cancelled is not None:
        raise cancelled
