"""Group commit: what many lanes ask for at the same time becomes one call."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from itertools import islice
from typing import Generic, TypeVar

from broker.ending import END_S, to_its_end
from broker.errors import BrokerUnavailable, RegistryUnavailable

In = TypeVar("In")
Out = TypeVar("Out")

#: What one call takes where items have a size, in bytes.
MOST_BYTES = 2 * 2**20
#: How many calls in a row do not wait for company at most, after one to which none came.
MOST_AT_ONCE = 7


class Batcher(Generic[In, Out]):
    """Hands the items of concurrent `submit` calls to `run`, up to `limit` at a time, one call after the other.

    With `size` the items of one call are `MOST_BYTES` together at most, or one alone that is larger: a call holds
    several copies of what it is given.

    What comes while one call runs makes up the next. With `linger_s` an item waits so long for company; with
    `busy_linger_s` only where the call before had several items, so that nobody waits for company that does not come.
    `complete` tells of how many that wait no more company is waited for; call `look` when it may tell otherwise.
    Without it, where several items waited and none came, the next call does not wait; where that is so again, the
    next three, and then as many as `MOST_AT_ONCE`.
    With `to_the_end` a submitter that is cancelled while the call with its item runs goes on only after that call's
    end, or after `END_S`: what the call writes is written by then.
    Where a call fails for another reason than an outage, its items are run one by one, so that one that cannot be
    processed fails alone.
    """

    def __init__(
        self,
        run: Callable[[Sequence[In]], Awaitable[Sequence[Out]]],
        limit: int = 256,
        *,
        linger_s: float = 0.0,
        busy_linger_s: float = 0.0,
        complete: Callable[[int], bool] | None = None,
        to_the_end: bool = False,
        size: Callable[[In], int] | None = None,
    ) -> None:
        self._run = run
        self._limit = limit
        self._size = size
        self._linger_s = linger_s
        self._busy_linger_s = busy_linger_s
        self._complete = complete
        #: While company is waited for: what ends that.
        self._lingering: asyncio.Future[None] | None = None
        #: How many calls were not to wait after the last that waited in vain, and how many more are not to.
        self._skipped = self._to_skip = 0
        self._to_the_end = to_the_end
        self._busy = False
        self._waiting: deque[tuple[In, asyncio.Future[Out]]] = deque()
        #: The items of the call that runs, and those who wait for no more than its end.
        self._called: Sequence[tuple[In, asyncio.Future[Out]]] = ()
        self._gave_up: list[asyncio.Future[None]] = []
        self._task: asyncio.Task[None] | None = None

    async def submit(self, item: In) -> Out:
        """Have one item processed, and return what came of it; raises what `run` raised."""
        future = self.put(item)
        try:
            return await future
        except asyncio.CancelledError:
            if self._to_the_end and any(called is future for _, called in self._called):
                await to_its_end(self._call_ended())
            raise

    def put(self, item: In) -> "asyncio.Future[Out]":
        """Have one item processed some time; what is returned ends as `submit` does."""
        future: asyncio.Future[Out] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, future))
        if self._task is None:
            self._task = asyncio.create_task(self._work())
        elif self._lingering is not None:
            self.look()
        return future

    def look(self) -> None:
        """Wait no more for company that cannot come."""
        if self._lingering is not None and not self._lingering.done() and self._enough():
            self._lingering.set_result(None)

    async def close(self) -> None:
        """Wait for the call that is running; nothing may be submitted any more."""
        if self._task is not None:
            await self._task

    async def abandon(self) -> None:
        """Break off the call that is running, and cancel all that waits; nothing may be submitted any more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        for _, future in self._waiting:
            future.cancel()

    async def _work(self) -> None:
        try:
            while self._waiting:
                linger_s = self._busy_linger_s if self._busy else self._linger_s
                if linger_s:
                    await self._linger(linger_s)
                self._busy = len(self._waiting) > 1 and self._busy_linger_s > 0
                batch = [self._waiting.popleft() for _ in range(self._next())]
                wanted = [(item, future) for item, future in batch if not future.done()]
                if wanted:
                    self._called = wanted
                    try:
                        await self._process(wanted)
                    finally:
                        self._end_call()
        finally:
            self._task = None

    async def _linger(self, linger_s: float) -> None:
        if self._to_skip:
            self._to_skip -= 1
            return
        loop = asyncio.get_running_loop()
        deadline = loop.time() + linger_s
        if self._complete is not None:
            # Those whose call has just ended go on first, and may come again.
            await asyncio.sleep(0)
        found = len(self._waiting)
        while not self._enough() and (left := deadline - loop.time()) > 0:
            self._lingering = loop.create_future()
            try:
                await asyncio.wait([self._lingering], timeout=left)
            finally:
                self._lingering = None
        if self._busy and self._complete is None:
            in_vain = len(self._waiting) == found > 1
            self._skipped = self._to_skip = min(2 * self._skipped + 1, MOST_AT_ONCE) if in_vain else 0

    def _enough(self) -> bool:
        waiting = len(self._waiting)
        return waiting >= self._limit or (self._complete is not None and self._complete(waiting))

    async def _call_ended(self) -> None:
        ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._gave_up.append(ended)
        await asyncio.wait([ended], timeout=END_S)

    def _end_call(self) -> None:
        self._called = ()
        for ended in self._gave_up:
            if not ended.done():
                ended.set_result(None)
        self._gave_up.clear()

    def _next(self) -> int:
        """Tell how many of those that wait go into the next call."""
        most = min(self._limit, len(self._waiting))
        if self._size is None:
            return most
        left = MOST_BYTES
        for number, (item, _) in enumerate(islice(self._waiting, most)):
            left -= self._size(item)
            if left < 0:
                return max(number, 1)
        return most

    async def _process(self, batch: list[tuple[In, asyncio.Future[Out]]]) -> None:
        try:
            results = await self._run([item for item, _ in batch])
        except asyncio.CancelledError:
            for _, future in batch:
                future.cancel()
            raise
        except Exception as error:
            if len(batch) == 1 or isinstance(error, BrokerUnavailable | RegistryUnavailable):
                for _, future in batch:
                    if not future.done():
                        future.set_exception(error)
                return
            for entry in batch:
                await self._process([entry])
            return
        for (_, future), result in zip(batch, results, strict=True):
            if not future.done():
                future.set_result(result)
