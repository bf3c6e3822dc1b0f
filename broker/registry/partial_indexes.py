"""Indexes on a part of a table's rows; whoever needs to know all that the database has imports `metadata` from here.

Declared apart from the tables: an index that names a dialect's option loads that dialect, and these name both. The
migrations make them, and what serves needs no declaration of them.
"""

from sqlalchemy import Index, text

from broker.registry.tables import deliveries, metadata

__all__ = ["metadata"]

# Those that someone may look for among millions that were delivered, which cost nothing here.
_UNFINISHED = text("status <> 'delivered'")
Index(
    "ix_deliveries_unfinished",
    deliveries.c.channel_id,
    deliveries.c.status,
    deliveries.c.created_at,
    deliveries.c.id,
    postgresql_where=_UNFINISHED,
    sqlite_where=_UNFINISHED,
)

# The head of a lane in one look, whatever the length of the log.
_PENDING = text("status = 'pending'")
Index(
    "ix_deliveries_pending",
    deliveries.c.webhook_id,
    deliveries.c.conversation_key,
    deliveries.c.message_counter,
    postgresql_where=_PENDING,
    sqlite_where=_PENDING,
)
