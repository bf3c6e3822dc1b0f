"""The backlog: deliveries that could not be made at once, waiting in order, lane by lane.

A lane is in the backlog while it has a row in `backlog_lanes`. That row is the lock under which three things
happen: a delivery is put behind the others, a drainer settles some, and the lane goes live again because none
are left. So no message overtakes at either switch, whichever workers do these things. Many lanes are dealt with
in one transaction; they are locked in the order of their keys, so that nobody waits in a circle.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from broker.models.records import now
from broker.registry.database import Database
from broker.registry.deliveries import record_of, write
from broker.registry.due_lanes import DUE, WEBHOOKS_OF, due_lanes
from broker.registry.lane_statements import LaneKey, head_of, lane_statements
from broker.registry.records import BacklogLane, Delivery
from broker.registry.tables import backlog_lanes

#: Lanes woken in one transaction.
LANES_A_PIECE = 2000
#: Clocks of two machines are no further apart than this.
APART = timedelta(minutes=1)


@dataclass(frozen=True, slots=True)
class LaneToPark:
    """A lane that goes into the backlog: its head, due for another attempt then, and all that follow it."""

    partition: int
    waiting: Sequence[Delivery]
    next_attempt_at: datetime
    #: When that was reckoned.
    at: datetime = field(default_factory=now)

    @property
    def key(self) -> LaneKey:
        """Name the lane."""
        return _key(self.waiting[0])


@dataclass(frozen=True, slots=True)
class LaneWorked:
    """What a drainer did on a lane: deliveries with what became of them, pending ones with failed attempts too.

    The lane is held for `lease_s` seconds more, or let go of until its next attempt where that is None.
    """

    lane: BacklogLane
    done: Sequence[Delivery]
    next_attempt_at: datetime
    lease_s: float | None
    #: When that was reckoned.
    at: datetime = field(default_factory=now)

    @property
    def key(self) -> LaneKey:
        """Name the lane."""
        return self.lane.webhook_id, self.lane.conversation_key


class Backlog:
    """Reads and writes the backlog. Each method is one transaction; all raise RegistryUnavailable."""

    def __init__(self, database: Database) -> None:
        self._db = database
        self._lanes = lane_statements(database.dialect)

    async def webhooks_of(self, partition: int) -> set[str]:
        """Return the webhooks that have lanes of a partition in the backlog."""
        async with self._db.read() as connection:
            rows = await connection.execute(WEBHOOKS_OF, {"partition": partition})
            return {row[0] for row in rows}

    async def park(self, lanes: Sequence[LaneToPark]) -> None:
        """Put lanes into the backlog. What is there already keeps its schedule, and gets the rest behind it."""
        opened = {lane.key: lane for lane in reversed(lanes)}
        rows = [
            {
                "webhook_id": key[0],
                "conversation_key": key[1],
                "partition": opened[key].partition,
                "next_attempt_at": opened[key].next_attempt_at,
                "leased_until": opened[key].at - APART,
            }
            for key in sorted(opened)
        ]
        async with self._db.write() as connection:
            await connection.execute(self._lanes.open, self._lanes.opened.given(rows))
            await write(self._db, connection, [delivery for lane in lanes for delivery in lane.waiting])

    async def append(self, lanes: Sequence[Sequence[Delivery]]) -> list[bool]:
        """Put deliveries behind those of their lanes; False for a lane that is live again, and nothing is written."""
        async with self._db.write() as connection:
            there = await self._lock(connection, {_key(waiting[0]) for waiting in lanes})
            behind = [waiting for waiting in lanes if _key(waiting[0]) in there]
            await write(self._db, connection, [delivery for waiting in behind for delivery in waiting])
            return [_key(waiting[0]) in there for waiting in lanes]

    async def due(self) -> list[str]:
        """Return the webhooks that have lanes which are due and that nobody holds, but no disabled ones.

        Costs a look into the index for each webhook with a backlog, however many lanes it has.
        """
        async with self._db.read() as connection:
            return [row[0] for row in await connection.execute(DUE, {"at": now()})]

    async def claim(self, wanted: Mapping[str, int], lease_s: float) -> list[BacklogLane]:
        """Take hold of lanes that are due, up to so many of each webhook, for `lease_s` seconds.

        Lanes of disabled webhooks stay where they are; they are due again as soon as the webhook is enabled.
        Those of webhooks that are gone are handed out, so that someone settles them.
        """
        at = now()
        lanes = []
        async with self._db.write() as connection:
            for webhook_id, limit in wanted.items():
                lanes += [
                    BacklogLane(row.webhook_id, row.conversation_key, row.next_attempt_at)
                    for row in await connection.execute(due_lanes(webhook_id, at, limit))
                ]
            until = at + timedelta(seconds=lease_s)
            await self._hold(
                connection,
                [(lane.webhook_id, lane.conversation_key, lane.next_attempt_at, until) for lane in lanes],
            )
        return lanes

    async def wake(self, webhook_id: str) -> None:
        """Make all lanes of a webhook due now, in pieces: its endpoint works again."""
        woken = LANES_A_PIECE
        while woken == LANES_A_PIECE:
            asleep = (
                select(backlog_lanes.c.conversation_key)
                .where(backlog_lanes.c.webhook_id == webhook_id, backlog_lanes.c.next_attempt_at > now())
                .limit(LANES_A_PIECE)
                .with_for_update(skip_locked=True)
            )
            async with self._db.write() as connection:
                keys = [row[0] for row in await connection.execute(asleep)]
                woken = len(keys)
                if keys:
                    await connection.execute(
                        update(backlog_lanes)
                        .where(
                            backlog_lanes.c.webhook_id == webhook_id,
                            backlog_lanes.c.conversation_key.in_(keys),
                        )
                        .values(next_attempt_at=now())
                    )

    async def bring_back(self, ahead_s: float) -> int:
        """Bring lanes back to the present whose schedule a clock wrote that has been set back since.

        They are told by being held, or written, more than `ahead_s` from now. Each is due after the same wait as
        before. Returns how many there were; the table is read from end to end.
        """
        brought = 0
        while True:
            at = now()
            ahead = (
                select(backlog_lanes)
                .where(backlog_lanes.c.leased_until > at + timedelta(seconds=ahead_s))
                .order_by(backlog_lanes.c.webhook_id, backlog_lanes.c.conversation_key)
                .limit(LANES_A_PIECE)
                .with_for_update()
            )
            async with self._db.write() as connection:
                rows = (await connection.execute(ahead)).all()
                await self._hold(
                    connection,
                    [
                        (
                            row.webhook_id,
                            row.conversation_key,
                            row.next_attempt_at - (row.leased_until + APART - at),
                            at - APART,
                        )
                        for row in rows
                    ],
                )
            brought += len(rows)
            if len(rows) < LANES_A_PIECE:
                return brought

    async def heads(self, lanes: Sequence[BacklogLane], limit: int) -> list[list[Delivery]]:
        """Return the first pending deliveries of each lane, in order."""
        keys = [(lane.webhook_id, lane.conversation_key) for lane in lanes]
        found: dict[LaneKey, list[Delivery]] = {key: [] for key in keys}
        async with self._db.read() as connection:
            if self._lanes.heads is None:
                for key in found:
                    found[key] = [record_of(row) for row in await connection.execute(head_of(key, limit))]
            else:
                named = {**self._lanes.name(found), "most": limit}
                for row in await connection.execute(self._lanes.heads, named):
                    found[row.webhook_id, row.conversation_key].append(record_of(row))
        return [found[key] for key in keys]

    async def settle(self, lanes: Sequence[LaneWorked]) -> list[bool]:
        """Write what drainers did; True for each lane of which nothing is left, so that it is live again."""
        keys = {lane.key for lane in lanes}
        async with self._db.write() as connection:
            await self._lock(connection, keys)
            await write(self._db, connection, [delivery for lane in lanes for delivery in lane.done])
            rows = await connection.execute(self._lanes.unfinished, self._lanes.name(keys))
            unfinished = {(row[0], row[1]) for row in rows}
            if finished := keys - unfinished:
                await connection.execute(self._lanes.close, self._lanes.name(finished))
            await self._hold(
                connection,
                [
                    (
                        *lane.key,
                        lane.next_attempt_at,
                        lane.at + (-APART if lane.lease_s is None else timedelta(seconds=lane.lease_s)),
                    )
                    for lane in lanes
                    if lane.key in unfinished
                ],
            )
        return [lane.key not in unfinished for lane in lanes]

    async def _lock(self, connection: AsyncConnection, keys: set[LaneKey]) -> set[LaneKey]:
        rows = await connection.execute(self._lanes.lock, self._lanes.name(keys))
        return {(row[0], row[1]) for row in rows}

    async def _hold(
        self, connection: AsyncConnection, lanes: Sequence[tuple[str, str, datetime, datetime]]
    ) -> None:
        if lanes:
            names = self._lanes.held.names
            rows = [dict(zip(names, lane, strict=True)) for lane in lanes]
            await connection.execute(self._lanes.hold, self._lanes.held.given(rows))


def _key(delivery: Delivery) -> LaneKey:
    return delivery.webhook_id, delivery.conversation_key
