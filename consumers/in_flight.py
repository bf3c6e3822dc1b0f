"""Attempts in flight: so many for one delivery worker, and fewer for any one webhook.

An endpoint that hangs uses up its own share and nobody else's.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class InFlight:
    """Hands out places for attempts; who finds none waits, first come first served."""

    def __init__(self, most: int, most_each: int) -> None:
        self._places = asyncio.Semaphore(most)
        self._most_each = most_each
        self._webhooks: dict[str, tuple[asyncio.Semaphore, int]] = {}

    @asynccontextmanager
    async def place(self, webhook_id: str) -> AsyncIterator[None]:
        """Hold a place for one attempt to a webhook."""
        own, users = self._webhooks.get(webhook_id, (None, 0))
        if own is None:
            own = asyncio.Semaphore(self._most_each)
        self._webhooks[webhook_id] = (own, users + 1)
        try:
            # The webhook's own place first: while it waits for that, it takes up no place of the others.
            async with own, self._places:
                yield
        finally:
            own, users = self._webhooks[webhook_id]
            if users == 1:
                del self._webhooks[webhook_id]
            else:
                self._webhooks[webhook_id] = (own, users - 1)
