"""Trials: which messages are begun while it is watched whether the process survives, side by side or apart.

Several partitions of one process may each try a message that came back often. When the process ends, all of them
were begun and none outlived it, so that would prove nothing against any of them in particular. Whatever is to be
given up has had a trial apart from all others in between.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Protocol

import structlog

from broker.errors import RegistryUnavailable

log = structlog.get_logger()

#: What was begun so often, the last time apart from others, and was never outlived, is given up.
TRIES = 3


class Suspects(Protocol):
    """Where it is written which message was begun."""

    async def begun(self, queue: str, message: str) -> int:
        """Return how often a message was begun and not ended."""
        ...

    async def begin(self, queue: str, message: str) -> int:
        """Write that a message is begun; returns how often it was begun before and not ended."""
        ...

    async def end(self, queue: str, message: str) -> None:
        """Write that the process outlived it."""
        ...


class Trials:
    """The trials of a process. One object for all its queues."""

    def __init__(self, suspects: Suspects) -> None:
        self._suspects = suspects
        self._running = 0
        self._apart = asyncio.Lock()
        self._idle = asyncio.Event()
        self._idle.set()

    async def tries(self, queue: str, message: str) -> int:
        """Return how often a message was tried and not outlived; 0 where the database does not tell."""
        try:
            return await self._suspects.begun(queue, message)
        except RegistryUnavailable:
            return 0

    @asynccontextmanager
    async def trial(self, queue: str, message: str, *, apart: bool) -> AsyncIterator[None]:
        """Try a message: it is written down before, and crossed out when the process is there afterwards.

        With `apart` no other is tried meanwhile. Without the database it is tried like any other.
        """
        async with self._admitted(apart):
            try:
                try:
                    await self._suspects.begin(queue, message)
                except RegistryUnavailable:
                    log.warning("message.not_written_down", queue=queue)
                yield
            finally:
                await asyncio.shield(self.clear(queue, message))

    async def clear(self, queue: str, message: str) -> None:
        """Cross a message out."""
        try:
            await self._suspects.end(queue, message)
        except RegistryUnavailable:
            log.warning("message.not_cleared", queue=queue)

    @asynccontextmanager
    async def _admitted(self, apart: bool) -> AsyncIterator[None]:
        async with self._apart:
            # Who comes now waits behind one that is to be tried apart; so does that one for those that run.
            if apart:
                await self._idle.wait()
                yield
                return
            self._running += 1
            self._idle.clear()
        try:
            yield
        finally:
            self._running -= 1
            if not self._running:
                self._idle.set()
