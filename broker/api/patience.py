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
        self._over: asyncio.Future[None] = self._loop.create_future()
        self._until = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self.take(seconds)

    def take(self, seconds: float) -> None:
        """Take so much time from now on."""
        self.pause()
        self._until = self._loop.time() + seconds
        self._timer = self._loop.call_at(self._until, self._end)

    def pause(self) -> float:
        """Stop the clock; returns what is left, for `take`."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        return self._until - self._loop.time()

    async def bound(self, work: Coroutine[Any, Any, T], left_behind: set["asyncio.Task[Any]"]) -> T:
        """Do work within the time; raises Problem 503 after it, and leaves behind what has yet to end."""
        task = asyncio.create_task(work)
        ends: set[asyncio.Future[Any]] = {task, self._over}
        try:
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                return task.result()
            raise unavailable(
                "The message broker or the database does not answer in time; try again shortly."
            )
        finally:
            self.pause()
            if not task.done():
                task.cancel()
                left_behind.add(task)
                task.add_done_callback(left_behind.discard)
                task.add_done_callback(lambda done: done.cancelled() or done.exception())

    def _end(self) -> None:
        if not self._over.done():
            self._over.set_result(None)


PATIENCE: web.RequestKey[Patience] = web.RequestKey("patience", Patience)
LEFT_BEHIND = web.AppKey("left_behind", set[asyncio.Task[Any]])
