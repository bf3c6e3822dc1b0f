"""Indexes on a part of a table's rows, or on expressions.

Whoever needs to know all that the database has imports `metadata` from here.

Declared apart from the tables: an index that names a dialect's option loads that dialect, and these name both. The
migrations make them, and what serves needs no declaration of them.
"""

from sqlalchemy import Index, text

from broker.registry.dead_letters import NEWEST_FIRST, STAGE_AND_CHANNEL
from broker.registry.tables import dead_letters, deliveries, metadata, turns

__all__ = ["metadata"]

# The responses of a conversation, past a million turns to which the bot said nothing.
_SAID = text("responses <> '[]'")
Index(
    "ix_turns_said",
    turns.c.conversation_key,
    turns.c.last_counter,
    postgresql_where=_SAID,
    sqlite_where=_SAID,
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

# The dead letters of a stage, of a channel, and of both, each in an order that the primary key does not have: a plan
# along the primary key would look for the few of a stage among all.
Index("ix_dead_letters_stage_newest", dead_letters.c.stage, NEWEST_FIRST)
Index("ix_dead_letters_channel_id_newest", dead_letters.c.channel_id, NEWEST_FIRST)
Index("ix_dead_letters_stage_channel_id_newest", STAGE_AND_CHANNEL, NEWEST_FIRST)
