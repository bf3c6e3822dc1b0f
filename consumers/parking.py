"""Parking: what the delivery worker and the backlog's drainer ask of the registry.

Many lanes at a time become one transaction, so that an endpoint that fails a hundred lanes at once costs the
others no hundred of them. Outages of the database are outlasted.
"""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Protocol

from broker.batching import Batcher
from broker.registry.backlog import LaneToPark, LaneWorked
from broker.registry.lane_statements import LaneKey
from broker.registry.records import BacklogLane, Delivery
from consumers.outage import outlast

#: Lanes dealt with in one transaction, and in one reading: a page of each is in memory then.
LANES_A_WRITE = 128
LANES_A_READ = 32
#: Deliveries of a lane read at a time.
PAGE = 50
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

    async def park(self, lanes: Sequence[LaneToPark]) -> None:
        """Put lanes into the backlog."""
        ...

    async def append(self, lanes: Sequence[Sequence[Delivery]]) -> list[bool]:
        """Put deliveries behind those of their lanes; False for each lane that is live again."""
        ...

    async def due(self) -> list[str]:
        """Return the webhooks that have lanes which are due."""
        ...

    async def claim(self, wanted: Mapping[str, int], lease_s: float) -> list[BacklogLane]:
        """Take hold of lanes that are due, so many of each webhook."""
        ...

    async def bring_back(self, ahead_s: float) -> int:
        """Bring lanes back to the present whose schedule a clock wrote that has been set back since."""
        ...

    async def heads(self, lanes: Sequence[BacklogLane], limit: int) -> list[list[Delivery]]:
        """Return the first pending deliveries of each lane, in order."""
        ...

    async def settle(self, lanes: Sequence[LaneWorked]) -> list[bool]:
        """Write what was done, and hold each lane on or let go of it; True for each that is live again."""
        ...


class Parking:
    """Puts lanes into the backlog, and takes them out. Close it when nobody uses it any more."""

    def __init__(self, store: BacklogStore) -> None:
        self._store = store
        self._parks: Batcher[LaneToPark, None] = Batcher(self._park, LANES_A_WRITE, to_the_end=True)
        self._appends: Batcher[Sequence[Delivery], bool] = Batcher(
            store.append, LANES_A_WRITE, to_the_end=True
        )
        self._heads: Batcher[BacklogLane, list[Delivery]] = Batcher(self._read_heads, LANES_A_READ)
        self._settles: Batcher[LaneWorked, bool] = Batcher(store.settle, LANES_A_WRITE, to_the_end=True)

    async def webhooks_of(self, partition: int) -> set[str]:
        """Return the webhooks that have lanes of a partition in the backlog."""
        return await outlast(lambda: self._store.webhooks_of(partition), "delivery.backlog")

    async def park(self, lane: LaneToPark) -> None:
        """Put a lane into the backlog: its head, due for another attempt then, and what waits behind it."""
        await outlast(lambda: self._parks.submit(lane), "delivery.parking")

    async def append(self, waiting: Sequence[Delivery]) -> bool:
        """Put deliveries behind those of their lane; False where the lane is live again."""
        return await outlast(lambda: self._appends.submit(waiting), "delivery.parking")

    async def due(self) -> list[str]:
        """Return the webhooks that have lanes which are due."""
        return await outlast(self._store.due, "backlog.looking")

    async def claim(self, wanted: Mapping[str, int], lease_s: float) -> list[BacklogLane]:
        """Take hold of lanes that are due, so many of each webhook."""
        return await outlast(lambda: self._store.claim(wanted, lease_s), "backlog.claiming")

    async def bring_back(self, ahead_s: float) -> int:
        """Bring lanes back to the present that were written more than `ahead_s` from now; returns how many."""
        return await outlast(lambda: self._store.bring_back(ahead_s), "backlog.bringing_back")

    async def head(self, lane: BacklogLane) -> list[Delivery]:
        """Return a page of a lane's first pending deliveries, in order."""
        return await outlast(lambda: self._heads.submit(lane), "backlog.reading")

    async def settle(self, lane: LaneWorked) -> bool:
        """Write what was done on a lane; True where it is live again."""
        return await outlast(lambda: self._settles.submit(lane), "backlog.settling")

    async def close(self) -> None:
        """Wait for what is being written."""
        for batcher in (self._parks, self._appends, self._heads, self._settles):
            await batcher.close()

    async def _park(self, lanes: Sequence[LaneToPark]) -> list[None]:
        await self._store.park(lanes)
        return [None] * len(lanes)

    async def _read_heads(self, lanes: Sequence[BacklogLane]) -> list[list[Delivery]]:
        return await self._store.heads(lanes, PAGE)
