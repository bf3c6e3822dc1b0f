"""Announcements within one process."""

import asyncio
from collections import deque

from broker.errors import SubscriptionLost

#: Announcements kept for a listener that is busy.
MOST_WAITING = 1000


class EmbeddedAnnouncements:
    """Listens until it is closed."""

    def __init__(self) -> None:
        self._arrived: deque[bytes] = deque(maxlen=MOST_WAITING)
        self._closed = False
        self._wake = asyncio.Event()

    async def receive(self) -> bytes:
        """Wait for the next one. Raises SubscriptionLost after the broker was closed."""
        while not self._arrived:
            if self._closed:
                raise SubscriptionLost("Announcements are not heard any more: the broker was closed.")
            self._wake.clear()
            await self._wake.wait()
        return self._arrived.popleft()

    def tell(self, body: bytes) -> None:
        """Hand over one announcement."""
        self._arrived.append(body)
        self._wake.set()

    def close(self) -> None:
        """Tell nothing more."""
        self._closed = True
        self._wake.set()
