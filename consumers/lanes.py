"""Lanes: first in, first out within a lane; lanes side by side.

In the bot worker a lane is a conversation, in the delivery worker a webhook's part of one. A lane costs a task
while it has work, and nothing at all when it is empty.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Hashable, Iterator
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Item = TypeVar("Item")


class HandedBack(Exception):
    """The work on a lane ends here: what is in it goes back, unacknowledged, to whoever is next."""


class Lane(Generic[Key, Item]):
    """The waiting items of one key, the one that is being worked on first."""

    __slots__ = ("items", "key", "resting", "stopping", "task")

    def __init__(self, key: Key) -> None:
        self.key = key
        self.items: deque[Item] = deque()
        #: True while the work only waits, and may be broken off at once.
        self.resting = False
        self.stopping = False
        #: The work on it, from when it is put among the lanes.
        self.task: asyncio.Task[None] | None = None

    def waiting(self) -> "Lane[Key, Item]":
        """Open, by `with`, a time of mere waiting, which stopping breaks off. Raises HandedBack after that."""
        if self.stopping:
            raise HandedBack
        return self

    def __enter__(self) -> None:
        self.resting = True

    def __exit__(self, *_: object) -> None:
        self.resting = False


class Lanes(Generic[Key, Item]):
    """Runs `work` on each lane that has items, one call at a time within a lane.

    `work` takes what it has finished off the lane's left end, and is called again while any are left. Whoever puts
    items in holds a bounded prefetch, which bounds them here too. A call that raises ends in `failed`, and nothing
    more of that lane is taken up: unacknowledged, its items come again.
    """

    def __init__(
        self,
        work: Callable[[Lane[Key, Item]], Awaitable[None]],
        failed: Callable[[Key, BaseException], None],
    ) -> None:
        self._work = work
        self._failed = failed
        self._loop = asyncio.get_running_loop()
        self._lanes: dict[Key, Lane[Key, Item]] = {}
        self._stopping = False

    def put(self, key: Key, item: Item) -> Lane[Key, Item] | None:
        """Put an item at the end of its lane, which is returned. Never blocks; after `stop` it is let go: None."""
        if self._stopping:
            return None
        lane = self._lanes.get(key)
        if lane is None:
            lane = self._lanes[key] = Lane(key)
            lane.task = self._loop.create_task(self._run(lane))
        lane.items.append(item)
        return lane

    def open(self, key: Key) -> None:
        """Begin a lane that is not there and has no items: the work on it brings some in."""
        if not self._stopping:
            lane = self._lanes[key] = Lane(key)
            lane.task = self._loop.create_task(self._run(lane))

    def get(self, key: Key) -> Lane[Key, Item] | None:
        """Return a lane that has work."""
        return self._lanes.get(key)

    def __iter__(self) -> Iterator[Lane[Key, Item]]:
        return iter(self._lanes.values())

    def __len__(self) -> int:
        return len(self._lanes)

    def __contains__(self, key: object) -> bool:
        return key in self._lanes

    async def stop(self, grace_s: float) -> None:
        """Start nothing more, let each lane end the call it is in, and cancel what runs after `grace_s`.

        A lane that only waits is broken off at once.
        """
        self._stopping = True
        at_work: list[asyncio.Task[None]] = []
        for lane in self._lanes.values():
            lane.stopping = True
            if lane.task is not None and not lane.task.done():
                at_work.append(lane.task)
                if lane.resting:
                    lane.task.cancel()
        if at_work and grace_s > 0:
            await asyncio.wait(at_work, timeout=grace_s)
        for task in at_work:
            task.cancel()
        await asyncio.gather(*at_work, return_exceptions=True)

    async def _run(self, lane: Lane[Key, Item]) -> None:
        try:
            while not self._stopping:
                await self._work(lane)
                if not lane.items:
                    break
        except HandedBack:
            return
        except Exception as error:
            self._failed(lane.key, error)
            return
        except asyncio.CancelledError:
            # Not by us: a lane must not end without a word, or what is in it waits for ever.
            if not self._stopping:
                self._failed(lane.key, RuntimeError("a lane was cancelled from elsewhere"))
            raise
        # Only now: a lane that ended otherwise stays, without work. A later item of it must not be taken up before
        # those that are handed back.
        del self._lanes[lane.key]
