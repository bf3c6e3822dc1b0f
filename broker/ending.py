"""Ending: work that must not be left running is waited for, whoever is cancelled meanwhile.

A write that is given up may still take place. Whoever goes on without waiting for its end reads what was there
before it, and is overtaken by it.
"""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

#: How long to wait for the end of a write that is given up, in seconds. It takes a round trip; longer only where the
#: other side is out of reach or stands still, and a process that stops has 10 seconds in all.
END_S = 2.0
#: How often a task that is left at a program's end is cancelled, and for how long each time it is waited for, in
#: seconds. Libraries catch a cancellation and wait for something else, which may never come.
CANCELLATIONS, EACH_S = 40, 0.05


def run(
    work: Coroutine[Any, Any, T], loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None
) -> T:
    """Run a program's work on an event loop of its own, and return its result; tasks that it leaves end with it.

    `asyncio.run` cancels each of them once and waits for as long as it takes. Raises what the work raises.
    """

    async def alone() -> T:
        try:
            return await work
        finally:
            await _end_others()

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        return runner.run(alone())


async def _end_others() -> None:
    left = asyncio.all_tasks() - {asyncio.current_task()}
    for _ in range(CANCELLATIONS):
        if not left:
            return
        for task in left:
            task.cancel()
        ended, left = await asyncio.wait(left, timeout=EACH_S)
        for task in ended:
            if not task.cancelled():
                # Looked at, so that nobody reports it: it was given up, whatever it has to say.
                task.exception()


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
