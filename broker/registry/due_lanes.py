"""Which lanes of the backlog are due: looked up by webhook, so that one with a million costs the others nothing."""

from datetime import datetime
from typing import Any

from sqlalchemy import Select, bindparam, exists, or_, select, text

from broker.registry.columns import Utc
from broker.registry.tables import backlog_lanes, webhooks

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
#: Webhooks with lanes of `:partition`.
WEBHOOKS_OF = text(
    _BEGINNINGS.format(where="WHERE partition = :partition", also="AND lane.partition = :partition")
)
#: Webhooks with lanes that are due at the moment `:at` and that nobody holds, but no disabled ones.
DUE = text(
    _BEGINNINGS.format(where="", also="")  # noqa: S608 - constants of this module
    + """
AND EXISTS (SELECT 1 FROM backlog_lanes AS lane WHERE lane.webhook_id = beginnings.webhook_id
            AND lane.next_attempt_at <= :at AND (lane.leased_until IS NULL OR lane.leased_until <= :at))
AND NOT EXISTS (SELECT 1 FROM webhooks WHERE webhooks.id = beginnings.webhook_id AND NOT webhooks.enabled)
"""
).bindparams(bindparam("at", type_=Utc))


def due_lanes(webhook_id: str, at: datetime, limit: int) -> Select[Any]:
    """Select and lock up to so many lanes of a webhook that are due then, the earliest first."""
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
