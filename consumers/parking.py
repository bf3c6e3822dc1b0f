"""Parking: what the delivery worker and the backlog's drainer ask of the registry, outlasting its outages."""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Protocol

from broker.registry.records import BacklogLane, Delivery
from consumers.outage import outlast

#: A webhook's part of a conversation: (webhook id, conversation key).
LaneKey = tuple[str, str]

#: Lanes remembered to be live, for each partition: what is forgotten is asked again.
MOST_LIVE = 10_000


class Parked:
    """Knows which lanes of a partition may be in the backlog, in little memory: by webhook.

    Only the holder of a partition parks its lanes, so it knows of every webhook that has any.
    """

    def __init__(self, webhooks: set[str]) -> None:
        self._webhooks = webhooks
        self._live: OrderedDict[LaneKey, None] = OrderedDict()

    def perhaps(self, lane: LaneKey) -> bool:
        """Tell whether a lane may be in the backlog, so that the registry has to be asked."""
        return lane[0] in self._webhooks and lane not in self._live

    def live(self, lane: LaneKey) -> None:
        """Note that a lane is not in the backlog; nobody but us puts it there."""
        self._live[lane] = None
        if len(self._live) > MOST_LIVE:
            self._live.popitem(last=False)

    def parked(self, lane: LaneKey) -> None:
        """Note that a lane is in the backlog."""
        self._webhooks.add(lane[0])
        self._live.pop(lane, None)


class BacklogStore(Protocol):
    """Where the backlog is kept; see broker.registry.backlog."""

    async def webhooks_of(self, partition: int) -> set[str]:
        """Return the webhooks that have lanes of a partition in the backlog."""
        ...

    async def park(self, partition: int, waiting: Sequence[Delivery], next_attempt_at: datetime) -> None:
        """Put a lane into the backlog."""
        ...

    async def append(self, waiting: Sequence[Delivery]) -> bool:
        """Put deliveries behind those of their lane; False where the lane is live again."""
        ...

    async def due(self) -> list[str]:
        """Return the webhooks that have lanes which are due."""
        ...

    async def claim(self, wanted: Mapping[str, int], lease_s: float) -> list[BacklogLane]:
        """Take hold of lanes that are due, so many of each webhook."""
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

    async def webhooks_of(self, partition: int) -> set[str]:
        """Return the webhooks that have lanes of a partition in the backlog."""
        return await outlast(lambda: self._store.webhooks_of(partition), "delivery.backlog")

    async def park(self, partition: int, waiting: Sequence[Delivery], next_attempt_at: datetime) -> None:
        """Put a lane into the backlog: its head, due for another attempt then, and what waits behind it."""
        await outlast(lambda: self._store.park(partition, waiting, next_attempt_at), "delivery.parking")

    async def append(self, waiting: Sequence[Delivery]) -> bool:
        """Put deliveries behind those of their lane; False where the lane is live again."""
        return await outlast(lambda: self._store.append(waiting), "delivery.parking")
