"""Patience: an answer comes in time, also where what it waits for does not end as soon as it is told to.

A connection to a database that fell silent takes seconds to be put away. Whoever asked has been answered then.
"""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from aiohttp import web

from broker.api.problems import unavailable

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
            raise unavailable(
                "The message broker or the database does not answer in time; try again shortly."
            ) from None
        finally:
            self._scope = None


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
