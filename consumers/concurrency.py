"""Concurrency: how many attempts at a time an endpoint has shown that it can take.

Additive increase, multiplicative decrease, as TCP has it (RFC 5681): a new endpoint begins with a few, each quick
answer allows one more, each failure and each slow answer halves it. So an endpoint that hangs from the start, or
begins to, holds little of what all share.
"""

import asyncio
from collections import deque

#: What every endpoint may have in flight, whatever it did.
LEAST = 4


class Concurrency:
    """Hands out an endpoint's own places, first come first served."""

    __slots__ = ("_least", "_most", "_waiting", "limit", "taken")

    def __init__(self, most: int) -> None:
        self._most = most
        self._least = min(LEAST, most)
        self._waiting: deque[asyncio.Future[None]] = deque()
        #: How many may be in flight now.
        self.limit = float(self._least)
        self.taken = 0

    async def take(self, within_s: float) -> bool:
        """Wait for a place; False after `within_s` seconds without one."""
        if self.taken < int(self.limit) and not self._waiting:
            self.taken += 1
            return True
        given: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(given)
        try:
            await asyncio.wait({given}, timeout=within_s)
        except asyncio.CancelledError:
            if given.done():
                self._leave()
            raise
        finally:
            if not given.done():
                given.cancel()
                self._waiting.remove(given)
        return not given.cancelled()

    def give_back(self, well: bool | None) -> None:
        """Give a place back; `well` says whether the answer was quick and good, None where none was asked for."""
        if well:
            self.limit = min(float(self._most), self.limit + 1)
        elif well is not None:
            self.limit = max(float(self._least), self.limit / 2)
        self._leave()

    def _leave(self) -> None:
        self.taken -= 1
        while self._waiting and self.taken < int(self.limit):
            self.taken += 1
            self._waiting.popleft().set_result(None)
