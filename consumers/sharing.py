"""Sharing: serves the partitions that are this worker's, and gives up those that become another's.

The queue's single active consumer is the fence: a worker that gets a partition subscribes at once, and waits
there behind the one that gives it up. Giving up is finishing what is in flight and closing the AMQP channel.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Protocol

import structlog

from consumers.assignment import assign
from consumers.serving import Stop

log = structlog.get_logger()


class Workers(Protocol):
    """Knows which workers live."""

    me: str

    async def changed(self, known: frozenset[str]) -> frozenset[str]:
        """Wait until others live than those who are known, and return them."""
        ...


class Sharing:
    """Serves this worker's share of the partitions. `run` is its one task."""

    def __init__(
        self, workers: Workers, partitions: int, serve_one: Callable[[int, Stop], Awaitable[None]], stop: Stop
    ) -> None:
        self._workers = workers
        self._partitions = partitions
        self._serve_one = serve_one
        self._stop = stop
        self._serving: dict[int, tuple[asyncio.Task[None], Stop]] = {}

    async def run(self) -> None:
        """Serve until told to stop. Raises what serving a partition raises."""
        stopping = asyncio.create_task(self._stop.wait())
        changing: asyncio.Task[frozenset[str]] | None = None
        share: frozenset[int] = frozenset()
        known: frozenset[str] = frozenset()
        try:
            while not stopping.done():
                if changing is None:
                    changing = asyncio.create_task(self._workers.changed(known))
                tasks = [task for task, _ in self._serving.values()]
                await asyncio.wait({stopping, changing, *tasks}, return_when=asyncio.FIRST_COMPLETED)
                if changing.done():
                    known, changing = changing.result(), None
                    share = assign(self._partitions, known).get(self._workers.me, frozenset())
                    log.info("assignment.changed", partitions=sorted(share), workers=len(known))
                self._follow(share)
            for _, stop in self._serving.values():
                stop.set()
            await asyncio.gather(*(task for task, _ in self._serving.values()))
        finally:
            left = [
                stopping,
                *([changing] if changing else []),
                *(task for task, _ in self._serving.values()),
            ]
            for task in left:
                task.cancel()
            await asyncio.gather(*left, return_exceptions=True)

    def _follow(self, share: frozenset[int]) -> None:
        for partition, (task, stop) in list(self._serving.items()):
            if task.done():
                task.result()
                del self._serving[partition]
            elif partition not in share:
                stop.set()
        for partition in sorted(share - self._serving.keys()):
            # One that is still being given up is taken again when that is over: its task ends then.
            stop = Stop(self._stop.grace_s)
            self._serving[partition] = (asyncio.create_task(self._serve(partition, stop)), stop)

    async def _serve(self, partition: int, stop: Stop) -> None:
        await self._serve_one(partition, stop)
