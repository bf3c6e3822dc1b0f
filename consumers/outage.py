"""Outlasting an outage: what a worker does while the broker or the database is away is wait."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import TypeVar

import structlog

from broker.errors import BrokerUnavailable, RegistryUnavailable

log = structlog.get_logger()

T = TypeVar("T")

#: Between tries, in seconds: soon at first, never rarer than the last.
FIRST_WAIT_S = 0.1
LONGEST_WAIT_S = 3.0


async def outlast(call: Callable[[], Awaitable[T]], stage: str) -> T:
    """Call until neither the broker nor the database is unavailable, and return the result.

    The messages in hand stay unacknowledged meanwhile, and the prefetch bounds how many they are. Ends only by
    success, another error, or cancellation.
    """
    wait = FIRST_WAIT_S
    waited = False
    while True:
        try:
            result = await call()
        except (BrokerUnavailable, RegistryUnavailable) as error:
            if not waited and wait > 1:
                log.warning(f"{stage}.waiting", why=str(error))
                waited = True
        else:
            if waited:
                log.info(f"{stage}.resumed")
            return result
        await asyncio.sleep(wait * random.uniform(0.7, 1.0))  # noqa: S311 - spreads load, keeps no secret
        wait = min(wait * 2, LONGEST_WAIT_S)
