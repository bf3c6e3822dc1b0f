"""The rate limit: how many messages a channel may post within each second to this process."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

from aiohttp import web

from broker.api.problems import Problem


@dataclass(frozen=True, slots=True)
class Allowance:
    """What is left to a channel within the second that ends at `reset`, in seconds since the epoch."""

    limit: int
    remaining: int
    reset: int
    allowed: bool

    @property
    def headers(self) -> dict[str, str]:
        """The rate limit headers of the wire contract."""
        return {
            "x-ratelimit-limit": str(self.limit),
            "x-ratelimit-remaining": str(self.remaining),
            "x-ratelimit-reset": str(self.reset),
        }


class RateLimit:
    """Counts messages by channel and second; `limit` 0 is without limit."""

    def __init__(self, limit: int, clock: Callable[[], float] = time.time) -> None:
        self._limit = limit
        self._clock = clock
        self._second = 0
        self._counts: dict[str, int] = {}

    def take(self, channel_id: str) -> Allowance | None:
        """Count one message; None where there is no limit."""
        if not self._limit:
            return None
        second = math.floor(self._clock())
        if second != self._second:
            # Only this second's channels are held, so the memory is bounded by what one second brings.
            self._second = second
            self._counts = {}
        count = self._counts.get(channel_id, 0)
        allowed = count < self._limit
        if allowed:
            count += 1
            self._counts[channel_id] = count
        return Allowance(self._limit, self._limit - count, second + 1, allowed)


#: Where a request keeps what is left to its channel, for the headers of whatever is answered.
ALLOWANCE: web.RequestKey[Allowance] = web.RequestKey("allowance", Allowance)


def keep_to_rate(request: web.BaseRequest, limit: RateLimit, channel_id: str) -> Allowance | None:
    """Count a message of the channel; returns what is left, None without limit. Raises Problem 429 over its rate."""
    allowance = limit.take(channel_id)
    if allowance is None:
        return None
    request[ALLOWANCE] = allowance
    if not allowance.allowed:
        raise Problem(
            429,
            f"This channel may post {allowance.limit} messages a second; try again in the next one.",
            headers={"Retry-After": "1"},
        )
    return allowance


async def show_rate(request: web.Request, response: web.StreamResponse) -> None:
    """Write the rate limit headers on whatever a message is answered with."""
    allowance = request.get(ALLOWANCE)
    if allowance is not None:
        response.headers.update(allowance.headers)
