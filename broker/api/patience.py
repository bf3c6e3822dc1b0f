"""Patience: an answer comes in time, also where what it waits for does not end as soon as it is told to.

A connection to a database that fell silent takes seconds to be put away. Whoever asked has been answered then.
"""

import asyncio
from collections.abc import Awaitable, Coroutine
from typing import Any, TypeVar

from aiohttp import web

from broker.api.problems import Problem, unavailable

T = TypeVar("T")

#: How long an answer may take, without the time in which the request's body comes in, in seconds.
PATIENCE_S = 1.7


class Patience:
    """The time that is left for one answer."""

    def __init__(self, seconds: float = PATIENCE_S) -> None:
        self._loop = asyncio.get_running_loop()
        self._until: float = self._loop.time() + seconds
        self._scope: asyncio.Timeout | None = None

    def take(self, seconds: float) -> None:
        """Take so much time from now on."""
        self._until = self._loop.time() + seconds
        if self._scope is not None:
            self._scope.reschedule(self._until)

    def pause(self) -> float:
        """Stop the clock; returns what is left, for `take`."""
        if self._scope is not None:
            self._scope.reschedule(None)
        return self._until - self._loop.time()

    async def bound(self, work: Coroutine[Any, Any, T]) -> T:
        """Do work within the time that ends as soon as it is told to; raises Problem 503 after it."""
        scope = self._scope = asyncio.timeout_at(self._until)
        try:
            async with scope:
                return await work
        except TimeoutError:
            if not scope.expired():
                raise
            raise _too_late() from None
        finally:
            self._scope = None


class Watch:
    """Bounds many pieces of work by the same time each, with one timer, which looks at the oldest.

    For what ends as soon as it is told to, and comes so often that a timer each would count.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        #: Tasks whose work is under way, the oldest first, each with when its time is over; None once it was told.
        self._until: dict[asyncio.Task[Any], float | None] = {}
        self._looking: asyncio.TimerHandle | None = None

    async def bound(self, work: Awaitable[T]) -> T:
        """Do work, one piece at a time in a task; raises Problem 503 where its time is over."""
        loop = asyncio.get_running_loop()
        task = asyncio.current_task(loop)
        assert task is not None
        before = task.cancelling()
        until = self._until[task] = loop.time() + self._seconds
        if self._looking is None:
            self._looking = loop.call_at(until, self._look)
        try:
            return await work
        except asyncio.CancelledError:
            # Whoever cancelled the task besides wants it to end.
            if self._until[task] is None and task.cancelling() <= before + 1:
                raise _too_late() from None
            raise
        finally:
            if self._until.pop(task) is None:
                task.uncancel()

    def _look(self) -> None:
        self._looking = None
        loop = asyncio.get_running_loop()
        now = loop.time()
        for task, until in self._until.items():
            if until is None:
                continue
            if until > now:
                self._looking = loop.call_at(until, self._look)
                return
            self._until[task] = None
            task.cancel()


def _too_late() -> Problem:
    return unavailable("The message broker or the database does not answer in time; try again shortly.")


async def leaving_behind(work: Coroutine[Any, Any, T], left_behind: set["asyncio.Task[Any]"]) -> T:
    """Do work that may not end as soon as it is told to: whoever is cancelled meanwhile does not wait for it."""
    task = asyncio.create_task(work)
    try:
        return await asyncio.shield(task)
    finally:
        if not task.done():
            task.cancel()
            left_behind.add(task)
            task.add_done_callback(left_behind.discard)
            task.add_done_callback(lambda done: done.cancelled() or done.exception())


PATIENCE: web.RequestKey[Patience] = web.RequestKey("patience", Patience)
LEFT_BEHIND = web.AppKey("left_behind", set[asyncio.Task[Any]])
