"""The registry's part of the backlog as a simple model: what each call does at once, in the loop's own time."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from broker.models.records import now
from broker.registry.backlog import LaneToPark, LaneWorked
from broker.registry.lane_statements import LaneKey
from broker.registry.records import BacklogLane, Delivery


@dataclass
class _Lane:
    partition: int
    due: float
    leased_until: float = 0.0


class BacklogModel:
    """Behaves as broker.registry.backlog and broker.registry.deliveries say that they do."""

    def __init__(self) -> None:
        self.rows: dict[str, Delivery] = {}
        self.lanes: dict[LaneKey, _Lane] = {}
        self.disabled: set[str] = set()

    async def webhooks_of(self, partition: int) -> set[str]:
        await asyncio.sleep(0)
        return {key[0] for key, lane in self.lanes.items() if lane.partition == partition}

    async def park(self, lanes: Sequence[LaneToPark]) -> None:
        await asyncio.sleep(0)
        for lane in lanes:
            self.lanes.setdefault(lane.key, _Lane(lane.partition, _loop_time(lane.next_attempt_at)))
            self._write(lane.waiting)
        await asyncio.sleep(0)

    async def append(self, lanes: Sequence[Sequence[Delivery]]) -> list[bool]:
        await asyncio.sleep(0)
        there = [_key(waiting[0]) in self.lanes for waiting in lanes]
        for waiting, is_there in zip(lanes, there, strict=True):
            if is_there:
                self._write(waiting)
        await asyncio.sleep(0)
        return there

    async def due(self) -> list[str]:
        await asyncio.sleep(0)
        return sorted({key[0] for key in self.lanes if self._is_due(key)})

    async def claim(self, wanted: Mapping[str, int], lease_s: float) -> list[BacklogLane]:
        await asyncio.sleep(0)
        claimed = []
        for webhook_id, limit in wanted.items():
            for key in [key for key in self.lanes if key[0] == webhook_id and self._is_due(key)][:limit]:
                self.lanes[key].leased_until = _time() + lease_s
                claimed.append(BacklogLane(*key, now()))
        return claimed

    async def bring_back(self, ahead_s: float) -> int:
        await asyncio.sleep(0)
        return 0

    async def heads(self, lanes: Sequence[BacklogLane], limit: int) -> list[list[Delivery]]:
        await asyncio.sleep(0)
        return [self._pending((lane.webhook_id, lane.conversation_key))[:limit] for lane in lanes]

    async def settle(self, lanes: Sequence[LaneWorked]) -> list[bool]:
        await asyncio.sleep(0)
        live = []
        for worked in lanes:
            self._write(worked.done)
            left = self._pending(worked.key)
            live.append(not left)
            if not left:
                self.lanes.pop(worked.key, None)
            elif worked.key in self.lanes:
                lane = self.lanes[worked.key]
                lane.due = _loop_time(worked.next_attempt_at)
                lane.leased_until = 0.0 if worked.lease_s is None else _time() + worked.lease_s
        await asyncio.sleep(0)
        return live

    async def wake(self, webhook_id: str) -> None:
        for key, lane in self.lanes.items():
            if key[0] == webhook_id:
                lane.due = min(lane.due, _time())

    async def log(self, deliveries: Sequence[Delivery]) -> None:
        await asyncio.sleep(0)
        self._write(deliveries)

    def _write(self, deliveries: Sequence[Delivery]) -> None:
        for new in deliveries:
            old = self.rows.get(new.id)
            if old is None or (
                old.status == "pending"
                and (new.status != "pending" or new.attempt_count >= old.attempt_count)
            ):
                count = max(new.attempt_count, old.attempt_count if old else 0)
                self.rows[new.id] = replace(new, attempt_count=count)

    def _pending(self, key: LaneKey) -> list[Delivery]:
        waiting = [row for row in self.rows.values() if row.status == "pending" and _key(row) == key]
        return sorted(waiting, key=lambda row: row.message_counter)

    def _is_due(self, key: LaneKey) -> bool:
        lane = self.lanes[key]
        return lane.due <= _time() and lane.leased_until <= _time() and key[0] not in self.disabled


def _key(delivery: Delivery) -> LaneKey:
    return (delivery.webhook_id, delivery.conversation_key)


def _time() -> float:
    return asyncio.get_running_loop().time()


def _loop_time(moment: datetime) -> float:
    return _time() + (moment - now()).total_seconds()
