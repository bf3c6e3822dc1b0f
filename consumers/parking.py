"""Parking: what the delivery worker and the backlog's drainer ask of the registry, outlasting its outages."""

from collections.abc import Sequence
from datetime import datetime
from typing import Protocol

from broker.registry.records import BacklogLane, Delivery
from consumers.outage import outlast

#: A webhook's part of a conversation: (webhook id, conversation key).
LaneKey = tuple[str, str]


class BacklogStore(Protocol):
    """Where the backlog is kept; see broker.registry.backlog."""

    async def lanes_of(self, partition: int) -> set[LaneKey]:
        """Return a partition's lanes that are in the backlog."""
        ...

    async def park(self, partition: int, waiting: Sequence[Delivery], next_attempt_at: datetime) -> None:
        """Put a lane into the backlog."""
        ...

    async def append(self, waiting: Sequence[Delivery]) -> bool:
        """Put deliveries behind those of their lane; False where the lane is live again."""
        ...

    async def claim(self, limit: int, lease_s: float) -> list[BacklogLane]:
        """Take hold of lanes that are due."""
        ...

    async def head(self, lane: BacklogLane, limit: int) -> list[Delivery]:
        """Return a lane's first pending deliveries, in order."""
        ...

    async def settle(
        self, lane: BacklogLane, done: Sequence[Delivery], *, next_attempt_at: datetime, lease_s: float | None
    ) -> bool:
        """Write what was done, and hold the lane on or let go of it; True where it is live again."""
        ...


class Parking:
    """Puts lanes into the backlog for the delivery worker."""

    def __init__(self, store: BacklogStore) -> None:
        self._store = store

    async def lanes_of(self, partition: int) -> set[LaneKey]:
        """Return a partition's lanes that are in the backlog."""
        return await outlast(lambda: self._store.lanes_of(partition), "delivery.backlog")

    async def park(self, partition: int, waiting: Sequence[Delivery], next_attempt_at: datetime) -> None:
        """Put a lane into the backlog: its head, due for another attempt then, and what waits behind it."""
        await outlast(lambda: self._store.park(partition, waiting, next_attempt_at), "delivery.parking")

    async def append(self, waiting: Sequence[Delivery]) -> bool:
        """Put deliveries behind those of their lane; False where the lane is live again."""
        return await outlast(lambda: self._store.append(waiting), "delivery.parking")
