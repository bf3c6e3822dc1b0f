"""The log of what was delivered: one row each, in batches, written beside the acknowledgement and not before it.

With the database away, deliveries to healthy webhooks go on. The log waits then, up to a bound; what does not
fit is counted and said, rather than kept in memory without end.
"""

import asyncio
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from typing import Protocol

import structlog

from broker.errors import RegistryUnavailable
from broker.registry.records import Delivery
from consumers.serving import Stop

log = structlog.get_logger()

#: Rows kept for a database that is away; about 1 KiB each.
MOST_WAITING = 50_000
ROWS_A_BATCH = 500
#: How long a row may wait for others, in seconds.
LINGER_S = 0.05


class DeliveryStore(Protocol):
    """Where deliveries are kept."""

    async def log(self, deliveries: Sequence[Delivery]) -> None:
        """Write what became of deliveries; one that is settled already keeps its row."""
        ...


class DeliveryLog:
    """Writes settled deliveries in the background. `run` is its one task; `add` never blocks."""

    def __init__(self, store: DeliveryStore) -> None:
        self._store = store
        self._waiting: deque[Delivery] = deque()
        self._some = asyncio.Event()
        #: How many deliveries were not logged because the database was away for too long.
        self.lost = 0

    def add(self, delivery: Delivery) -> None:
        """Have a delivered delivery logged soon."""
        if len(self._waiting) >= MOST_WAITING:
            self._waiting.popleft()
            self.lost += 1
            if self.lost in (1, 10, 100) or self.lost % 1000 == 0:
                log.warning(
                    "delivery_log.rows_lost", lost=self.lost, why="the database has been away for too long"
                )
        self._waiting.append(delivery)
        self._some.set()

    async def run(self, stop: Stop) -> None:
        """Write until told to stop; call `flush` after the last `add`."""
        while not stop.is_set():
            await stop.sleep_until(self._some)
            await stop.sleep(LINGER_S)
            try:
                await self._write()
            except RegistryUnavailable:
                await stop.sleep(1.0)
            except Exception:
                # What cannot be written must not stop deliveries; it is left out, and said.
                left_out = min(ROWS_A_BATCH, len(self._waiting))
                log.exception("delivery_log.rows_refused", rows=left_out)
                for _ in range(left_out):
                    self._waiting.popleft()
                self.lost += left_out

    async def flush(self, within_s: float) -> None:
        """Write what is left, as far as that goes within the time."""
        with suppress(RegistryUnavailable, TimeoutError):
            async with asyncio.timeout(within_s):
                await self._write()
        if self._waiting:
            log.warning(
                "delivery_log.rows_lost", lost=self.lost + len(self._waiting), why="stopped before written"
            )

    async def _write(self) -> None:
        while self._waiting:
            batch = [self._waiting[i] for i in range(min(ROWS_A_BATCH, len(self._waiting)))]
            await self._store.log(batch)
            for _ in batch:
                self._waiting.popleft()
        self._some.clear()
