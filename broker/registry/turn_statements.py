"""The statements that load conversations and turns, and the rows that are written of them.

They are made once: what they are given varies, and their text does not.
"""

from sqlalchemy import BigInteger, Column, Integer, select

from broker.registry.columns import Words
from broker.registry.rows import Rows, one_of
from broker.registry.tables import channels, conversations, turns


class TurnStatements:
    """What loads conversations and turns, for one dialect."""

    def __init__(self, dialect: str) -> None:
        self.wanted = Rows(
            dialect,
            [
                Column("place", Integer),
                Column("message_id", Words(36)),
                Column("channel_id", Words(64)),
                Column("key", Words()),
            ],
        )
        of = self.wanted.source.subquery("wanted")
        self.load = select(
            of.c.place,
            channels.c.revision,
            turns.c.message_id,
            conversations.c.session,
            conversations.c.message_counter,
            conversations.c.turns,
        ).select_from(
            of.outerjoin(channels, channels.c.id == of.c.channel_id)
            .outerjoin(conversations, conversations.c.key == of.c.key)
            .outerjoin(turns, turns.c.message_id == of.c.message_id)
        )
        self.channels = select(channels).where(one_of(dialect, channels.c.id))
        self.turns = select(turns).where(one_of(dialect, turns.c.message_id))
        #: All that a commit writes of one turn, and the revision of the channel that it was made for.
        self.rows = Rows(
            dialect,
            [
                *turns.c,
                *(conversations.c[name] for name in ("user_id", "session")),
                Column("channel_revision", BigInteger),
            ],
        )
