"""Redrive: what was given up is tried once more, in the order in which it was said.

A delivery goes back into the backlog of its lane, under the lock that all who touch the lane hold; see
broker.registry.backlog. It keeps its attempts; the schedule and the time to live begin anew.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from sqlalchemy import Row, and_, case, delete, literal, or_, select, tuple_, union_all, update
from sqlalchemy.ext.asyncio import AsyncConnection

from broker.models.records import now
from broker.partitions import partition_of
from broker.registry.backlog import APART
from broker.registry.database import Database
from broker.registry.deliveries import record_of
from broker.registry.records import Delivery, DeliveryStatus
from broker.registry.rows import Rows, keys, one_of
from broker.registry.tables import backlog_lanes, deliveries, turns, webhooks

#: Deliveries redriven in one transaction, so that no lane is locked for long.
ROWS_A_PIECE = 500
GIVEN_UP: tuple[DeliveryStatus, ...] = ("dead", "expired")

#: Why a delivery is not redriven: there is none, or it waits already, or it arrived, or its webhook is gone.
Refusal = Literal["unknown", "pending", "delivered", "webhook deleted"]
#: A delivery's place among those of its webhook: conversation key, message counter, id.
Place = tuple[str, int, str]


@dataclass(frozen=True, slots=True)
class Redriven:
    """How many deliveries wait again; `last` is where to go on, and None where nothing is left."""

    count: int
    last: Place | None


class Redrive:
    """Puts what was given up back on its way. All methods raise RegistryUnavailable."""

    def __init__(self, database: Database, partitions: int) -> None:
        self._db = database
        self._partitions = partitions
        lane = backlog_lanes.c
        self._lane_rows = Rows(
            database.dialect,
            [lane.webhook_id, lane.conversation_key, lane.partition, lane.next_attempt_at, lane.leased_until],
        )
        insert = database.insert(backlog_lanes).from_select(self._lane_rows.names, self._lane_rows.source)
        at = insert.excluded.next_attempt_at
        # Whoever holds the lane says themselves when it is due next.
        free = or_(lane.leased_until.is_(None), lane.leased_until <= at)
        due = case((and_(free, lane.next_attempt_at > at), at), else_=lane.next_attempt_at)
        # Where nothing changes, the update is there for its lock, as when a lane is parked.
        self._open_lanes = insert.on_conflict_do_update(
            index_elements=[lane.webhook_id, lane.conversation_key], set_={"next_attempt_at": due}
        )
        self._wait_again = update(deliveries).where(
            one_of(database.dialect, deliveries.c.id), deliveries.c.status.in_(GIVEN_UP)
        )

    async def delivery(self, delivery_id: str) -> Delivery | Refusal:
        """Let a dead or expired delivery wait again, due now; a word says why it is not one to redrive.

        It is returned without its attempts. That of a disabled webhook waits until the webhook is enabled.
        """
        wanted = select(deliveries).where(deliveries.c.id == delivery_id)
        async with self._db.write() as connection:
            row = (await connection.execute(wanted)).first()
            if row is None:
                return "unknown"
            if row.status not in GIVEN_UP:
                return _refusal(row)
            if await self._channel_of(connection, row.webhook_id) is None:
                return "webhook deleted"
            if await self._redrive(connection, row.webhook_id, [row]):
                return record_of((await connection.execute(wanted)).one())
            # Someone else redrove it while this waited for the lane; the row of the lane may be new and empty.
            await connection.rollback()
            return _refusal((await connection.execute(wanted)).one())

    async def webhook(
        self,
        webhook_id: str,
        *,
        since: datetime | None = None,
        after: Place | None = None,
        limit: int = 10_000,
    ) -> Redriven | None:
        """Let up to `limit` dead and expired deliveries of a webhook wait again; None where there is no such webhook.

        Those whose responses were said since then, each lane's in order, from a place on. In transactions of at
        most 500: where it is cut short, those that are done stay done, and the rest is as it was.
        """
        async with self._db.read() as connection:
            if await self._channel_of(connection, webhook_id) is None:
                return None
            found = (await connection.execute(_given_up(webhook_id, since, after, limit))).all()
        count = 0
        for start in range(0, len(found), ROWS_A_PIECE):
            async with self._db.write() as connection:
                count += await self._redrive(connection, webhook_id, found[start : start + ROWS_A_PIECE])
        last = found[-1] if len(found) == limit else None
        return Redriven(count, last and (last.conversation_key, last.message_counter, last.id))

    async def forget_failed_turn(self, message_id: str) -> bool:
        """Delete the turn of a message that the bot could not answer, so that it is asked once more.

        The turn of an answered message stays, and False is returned.
        """
        async with self._db.write() as connection:
            gone = await connection.execute(
                delete(turns).where(turns.c.message_id == message_id, turns.c.outcome == "failed")
            )
        return bool(gone.rowcount)

    async def _redrive(self, connection: AsyncConnection, webhook_id: str, rows: Sequence[Row[Any]]) -> int:
        """Lock the lanes, then let what is still given up wait in them; returns how many that are."""
        at = now()
        lanes = self._lanes(webhook_id, {row.conversation_key for row in rows}, at)
        await connection.execute(self._open_lanes, self._lane_rows.given(lanes))
        waiting = self._wait_again.values(
            status="pending",
            reason=None,
            finished_at=None,
            attempts_before=deliveries.c.attempt_count,
            redriven_at=at,
        )
        ids = keys(self._db.dialect, (row.id for row in rows))
        return (await connection.execute(waiting, ids)).rowcount

    def _lanes(self, webhook_id: str, conversations: Iterable[str], at: datetime) -> list[dict[str, Any]]:
        # In order of their keys, so that two redrives never wait for each other.
        return [
            {
                "webhook_id": webhook_id,
                "conversation_key": key,
                "partition": partition_of(key, self._partitions),
                "next_attempt_at": at,
                "leased_until": at - APART,
            }
            for key in sorted(conversations)
        ]

    async def _channel_of(self, connection: AsyncConnection, webhook_id: str) -> str | None:
        found: str | None = await connection.scalar(
            select(webhooks.c.channel_id).where(webhooks.c.id == webhook_id)
        )
        return found


def _given_up(webhook_id: str, since: datetime | None, after: Place | None, limit: int) -> Any:
    place = (deliveries.c.conversation_key, deliveries.c.message_counter, deliveries.c.id)
    where = [deliveries.c.webhook_id == webhook_id]
    if since is not None:
        where.append(deliveries.c.created_at >= since)
    if after is not None:
        here = (literal(value, column.type) for value, column in zip(after, place, strict=True))
        where.append(tuple_(*place) > tuple_(*here))
    # Each status by itself: asked for both at once, a plan may look for them among all that was delivered.
    found = union_all(*(select(*place).where(*where, deliveries.c.status == status) for status in GIVEN_UP))
    return found.order_by(*found.selected_columns).limit(limit)


def _refusal(row: Row[Any]) -> Refusal:
    return "delivered" if row.status == "delivered" else "pending"
