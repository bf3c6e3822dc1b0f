"""The backlog: deliveries that could not be made at once, waiting in order, lane by lane.

A lane is in the backlog while it has a row in `backlog_lanes`. That row is the lock under which three things
happen: a delivery is put behind the others, a drainer settles some, and the lane goes live again because none
are left. So no message overtakes at either switch, whichever workers do these things.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Select,
    and_,
    bindparam,
    delete,
    exists,
    or_,
    select,
    text,
    update,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from broker.models.records import now
from broker.registry.database import Database
from broker.registry.deliveries import record_of, write
from broker.registry.records import BacklogLane, Delivery
from broker.registry.tables import Utc, backlog_lanes, deliveries, webhooks

LaneKey = tuple[str, str]

#: Lanes woken in one transaction.
LANES_A_PIECE = 2000


class Backlog:
    """Reads and writes the backlog. Each method is one transaction; all raise RegistryUnavailable."""

    def __init__(self, database: Database) -> None:
        self._db = database

    async def webhooks_of(self, partition: int) -> set[str]:
        """Return the webhooks that have lanes of a partition in the backlog."""
        async with self._db.read() as connection:
            rows = await connection.execute(_WEBHOOKS_OF, {"partition": partition})
            return {row[0] for row in rows}

    async def park(self, partition: int, waiting: Sequence[Delivery], next_attempt_at: datetime) -> None:
        """Put a lane into the backlog: its head, due for another attempt then, and all that follow it.

        Where the lane is there already, they go behind what it has, and its schedule stays.
        """
        head = waiting[0]
        lane = self._db.insert(backlog_lanes).values(
            webhook_id=head.webhook_id,
            conversation_key=head.conversation_key,
            partition=partition,
            next_attempt_at=next_attempt_at,
            leased_until=None,
        )
        # An update that changes nothing, for its lock: were the row only skipped, a drainer could delete it
        # before the deliveries behind it are written.
        locked = lane.on_conflict_do_update(
            index_elements=[backlog_lanes.c.webhook_id, backlog_lanes.c.conversation_key],
            set_={"partition": lane.excluded.partition},
        )
        async with self._db.write() as connection:
            await connection.execute(locked)
            await write(self._db, connection, waiting)

    async def append(self, waiting: Sequence[Delivery]) -> bool:
        """Put deliveries behind those of their lane; False where the lane is live again and nothing was written."""
        head = waiting[0]
        async with self._db.write() as connection:
            if not await self._lock(connection, (head.webhook_id, head.conversation_key)):
                return False
            await write(self._db, connection, waiting)
            return True

    async def due(self) -> list[str]:
        """Return the webhooks that have lanes which are due and that nobody holds, but no disabled ones.

        Costs a look into the index for each webhook with a backlog, however many lanes it has.
        """
        async with self._db.read() as connection:
            return [row[0] for row in await connection.execute(_DUE, {"at": now()})]

    async def claim(self, wanted: Mapping[str, int], lease_s: float) -> list[BacklogLane]:
        """Take hold of lanes that are due, up to so many of each webhook, for `lease_s` seconds.

        Lanes of disabled webhooks stay where they are; they are due again as soon as the webhook is enabled.
        Those of webhooks that are gone are handed out, so that someone settles them.
        """
        at = now()
        until = at + timedelta(seconds=lease_s)
        lanes = []
        async with self._db.write() as connection:
            for webhook_id, limit in wanted.items():
                rows = await connection.execute(_due_lanes(webhook_id, at, limit))
                lanes += [
                    BacklogLane(row.webhook_id, row.conversation_key, row.next_attempt_at) for row in rows
                ]
            for lane in lanes:
                await connection.execute(
                    update(backlog_lanes)
                    .where(_is(lane.webhook_id, lane.conversation_key))
                    .values(leased_until=until)
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

    async def head(self, lane: BacklogLane, limit: int) -> list[Delivery]:
        """Return the first pending deliveries of a lane, in order."""
        wanted = (
            select(deliveries)
            .where(_pending(lane.webhook_id, lane.conversation_key))
            .order_by(deliveries.c.message_counter)
            .limit(limit)
        )
        async with self._db.read() as connection:
            return [record_of(row) for row in await connection.execute(wanted)]

    async def settle(
        self, lane: BacklogLane, done: Sequence[Delivery], *, next_attempt_at: datetime, lease_s: float | None
    ) -> bool:
        """Write what a drainer did; True where nothing is left and the lane is live again.

        `done` are deliveries with what became of them, still pending ones with their failed attempts among
        them. The lane is held for `lease_s` seconds more, or let go of until its next attempt where that is None.
        """
        key = (lane.webhook_id, lane.conversation_key)
        async with self._db.write() as connection:
            await self._lock(connection, key)
            if done:
                await write(self._db, connection, done)
            left = await connection.scalar(select(exists().where(_pending(*key))))
            if not left:
                await connection.execute(delete(backlog_lanes).where(_is(*key)))
                return True
            until = None if lease_s is None else now() + timedelta(seconds=lease_s)
            await connection.execute(
                update(backlog_lanes)
                .where(_is(*key))
                .values(next_attempt_at=next_attempt_at, leased_until=until)
            )
            return False

    async def _lock(self, connection: AsyncConnection, lane: LaneKey) -> bool:
        # SQLite has no row locks and needs none: it has one writer at a time.
        locked = await connection.execute(
            select(backlog_lanes.c.webhook_id).where(_is(*lane)).with_for_update()
        )
        return locked.first() is not None


#: The webhooks of an index's beginnings, one look each: neither database skips along an index by itself.
_BEGINNINGS = """
WITH RECURSIVE beginnings (webhook_id) AS (
    SELECT min(webhook_id) FROM backlog_lanes {where}
    UNION ALL
    SELECT (SELECT min(lane.webhook_id) FROM backlog_lanes AS lane
            WHERE lane.webhook_id > beginnings.webhook_id {also})
    FROM beginnings WHERE beginnings.webhook_id IS NOT NULL
)
SELECT webhook_id FROM beginnings WHERE webhook_id IS NOT NULL
"""
_WEBHOOKS_OF = text(
    _BEGINNINGS.format(where="WHERE partition = :partition", also="AND lane.partition = :partition")
)
_DUE = text(
    _BEGINNINGS.format(where="", also="")  # noqa: S608 - constants of this module
    + """
AND EXISTS (SELECT 1 FROM backlog_lanes AS lane WHERE lane.webhook_id = beginnings.webhook_id
            AND lane.next_attempt_at <= :at AND (lane.leased_until IS NULL OR lane.leased_until <= :at))
AND NOT EXISTS (SELECT 1 FROM webhooks WHERE webhooks.id = beginnings.webhook_id AND NOT webhooks.enabled)
"""
).bindparams(bindparam("at", type_=Utc))


def _due_lanes(webhook_id: str, at: datetime, limit: int) -> Select[Any]:
    return (
        select(backlog_lanes)
        .where(
            backlog_lanes.c.webhook_id == webhook_id,
            backlog_lanes.c.next_attempt_at <= at,
            or_(backlog_lanes.c.leased_until.is_(None), backlog_lanes.c.leased_until <= at),
            ~exists().where(webhooks.c.id == webhook_id, webhooks.c.enabled.is_(False)),
        )
        .order_by(backlog_lanes.c.next_attempt_at)
        .limit(limit)
        .with_for_update(skip_locked=True, of=backlog_lanes)
    )


def _is(webhook_id: str, conversation_key: str) -> ColumnElement[bool]:
    return and_(
        backlog_lanes.c.webhook_id == webhook_id, backlog_lanes.c.conversation_key == conversation_key
    )


def _pending(webhook_id: str, conversation_key: str) -> ColumnElement[bool]:
    return and_(
        deliveries.c.webhook_id == webhook_id,
        deliveries.c.conversation_key == conversation_key,
        deliveries.c.status == "pending",
    )
