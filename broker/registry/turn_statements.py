"""The statements that load and write conversations and turns.

They are made once: what they are given varies, and their text does not.
"""

from typing import Any

from sqlalchemy import Column, Integer, delete, select, update

from broker.registry.database import insert_into
from broker.registry.rows import Rows, one_of
from broker.registry.tables import Words, channels, conversations, turns


class TurnStatements:
    """What loads and writes conversations and turns, for one dialect."""

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
        self.turn_rows = Rows(dialect, list(turns.c))
        self.insert_turns = (
            insert_into(dialect, turns)
            .from_select(self.turn_rows.names, self.turn_rows.source)
            .on_conflict_do_nothing()
            .returning(turns.c.message_id)
        )
        self.conversation_rows = Rows(dialect, list(conversations.c))
        self.open = (
            insert_into(dialect, conversations)
            .from_select(self.conversation_rows.names, self.conversation_rows.source)
            .on_conflict_do_nothing()
            .returning(conversations.c.key)
        )
        given = self.conversation_rows.source.subquery("given")
        self.advance = (
            update(conversations)
            .values({name: given.c[name] for name in ("session", "message_counter", "turns", "updated_at")})
            .where(conversations.c.key == given.c.key, conversations.c.turns == given.c.turns - 1)
            .returning(conversations.c.key)
        )
        self.delete_turns = delete(turns).where(one_of(dialect, turns.c.message_id))
        self.mark_published = update(turns).where(one_of(dialect, turns.c.message_id)).values(published=True)
        self.whole_rows = Rows(
            dialect, [*turns.c, *(conversations.c[name] for name in ("user_id", "session"))]
        )
        #: All of a commit in one statement, None where the dialect has no statements that write within others.
        self.whole: Any = None if dialect == "sqlite" else self._whole()

    def _whole(self) -> Any:
        given = self.whole_rows.source.cte("given")
        now_known = {
            "session": given.c.session,
            "message_counter": given.c.last_counter,
            "turns": given.c.number,
            "updated_at": given.c.created_at,
        }
        advanced = (
            update(conversations)
            .values(now_known)
            .where(
                conversations.c.key == given.c.conversation_key,
                conversations.c.turns == given.c.number - 1,
                given.c.number != 1,
            )
            .returning(conversations.c.key)
            .cte("advanced")
        )
        first = select(
            given.c.conversation_key, given.c.channel_id, given.c.user_id, *now_known.values()
        ).where(given.c.number == 1)
        opened = (
            insert_into("postgresql", conversations)
            .from_select(["key", "channel_id", "user_id", *now_known], first)
            .on_conflict_do_nothing()
            .returning(conversations.c.key)
            .cte("opened")
        )
        moved = select(advanced.c.key).union_all(select(opened.c.key))
        names = [column.name for column in turns.c]
        return (
            insert_into("postgresql", turns)
            .from_select(
                names, select(*(given.c[name] for name in names)).where(given.c.conversation_key.in_(moved))
            )
            .returning(turns.c.message_id)
        )
