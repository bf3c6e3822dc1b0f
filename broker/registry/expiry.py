"""Expiry: what waits for a disabled webhook ends when its time to live does, as if it were being tried.

Whoever drains a lane looks at the time to live by themselves. Lanes of disabled webhooks nobody drains.
"""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import and_, delete, exists, func, select, tuple_, update

from broker.models.records import now
from broker.registry.database import Database
from broker.registry.tables import backlog_lanes, channels, deliveries, webhooks

#: Deliveries that expire in one transaction.
ROWS_A_PIECE = 500


@dataclass(frozen=True, slots=True)
class Dormant:
    """A disabled webhook with a backlog, and the time to live that was set for it, in seconds."""

    webhook_id: str
    time_to_live_s: float | None


class Expiry:
    """Finds and expires what outlived its time in the backlogs of disabled webhooks."""

    def __init__(self, database: Database) -> None:
        self._db = database

    async def dormant(self) -> list[Dormant]:
        """Return the disabled webhooks that have a backlog."""
        query = (
            select(webhooks.c.id, func.coalesce(webhooks.c.time_to_live_s, channels.c.time_to_live_s))
            .join(channels, channels.c.id == webhooks.c.channel_id)
            .where(
                webhooks.c.enabled.is_(False),
                exists().where(backlog_lanes.c.webhook_id == webhooks.c.id),
            )
        )
        async with self._db.read() as connection:
            return [Dormant(row[0], row[1]) for row in await connection.execute(query)]

    async def expire(self, webhook_id: str, before: datetime, reason: str) -> int:
        """Expire some of what a webhook has waiting since before then; returns how many lanes that touched.

        Call it again until that is 0.
        """
        old = and_(
            deliveries.c.webhook_id == webhook_id,
            deliveries.c.status == "pending",
            func.coalesce(deliveries.c.redriven_at, deliveries.c.created_at) < before,
        )
        lane = (deliveries.c.webhook_id, deliveries.c.conversation_key)
        some = select(deliveries.c.conversation_key).where(old).limit(ROWS_A_PIECE)
        async with self._db.write() as connection:
            # The lane's row is the lock under which its deliveries are settled; see broker.registry.backlog.
            locked = await connection.execute(
                select(backlog_lanes.c.conversation_key)
                .where(backlog_lanes.c.webhook_id == webhook_id, backlog_lanes.c.conversation_key.in_(some))
                .with_for_update(skip_locked=True)
            )
            keys = [(webhook_id, row[0]) for row in locked]
            if not keys:
                return 0
            expired = {"status": "expired", "reason": reason, "finished_at": now()}
            await connection.execute(update(deliveries).where(old, tuple_(*lane).in_(keys)).values(expired))
            left = exists().where(
                deliveries.c.webhook_id == backlog_lanes.c.webhook_id,
                deliveries.c.conversation_key == backlog_lanes.c.conversation_key,
                deliveries.c.status == "pending",
            )
            await connection.execute(
                delete(backlog_lanes).where(
                    tuple_(backlog_lanes.c.webhook_id, backlog_lanes.c.conversation_key).in_(keys), ~left
                )
            )
            return len(keys)
