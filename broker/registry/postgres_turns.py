"""Turns on PostgreSQL: a batch is written by one statement, or step by step where that one fails."""

from collections.abc import Mapping, Sequence
from typing import Any

from asyncpg import IntegrityConstraintViolationError
from sqlalchemy import delete, or_, select, update
from sqlalchemy.dialects import postgresql

from broker.registry.database import Database
from broker.registry.direct import Statement
from broker.registry.rows import Rows, keys, one_of
from broker.registry.tables import channels, conversations, turns

_DIALECT = "postgresql"


class PostgresTurns:
    """Writes turns with their conversations."""

    def __init__(self, database: Database, rows: Rows) -> None:
        assert database.direct is not None, "on PostgreSQL there is one"
        self._db = database
        self._direct = database.direct
        self._rows = rows
        self._whole = Statement(_whole(rows))
        self._mark = _mark()
        self._mark_alone = Statement(self._mark)
        self._revisions = select(channels.c.id, channels.c.revision).where(one_of(_DIALECT, channels.c.id))
        self._turn_rows = Rows(_DIALECT, list(turns.c))
        self._insert = (
            postgresql.insert(turns)
            .from_select(self._turn_rows.names, self._turn_rows.source)
            .on_conflict_do_nothing()
            .returning(turns.c.message_id)
        )
        self._conversation_rows = Rows(_DIALECT, list(conversations.c))
        self._open = (
            postgresql.insert(conversations)
            .from_select(self._conversation_rows.names, self._conversation_rows.source)
            .on_conflict_do_nothing()
            .returning(conversations.c.key)
        )
        given = self._conversation_rows.source.subquery("given")
        self._advance = (
            update(conversations)
            .values({name: given.c[name] for name in ("session", "message_counter", "turns", "updated_at")})
            .where(conversations.c.key == given.c.key, conversations.c.turns == given.c.turns - 1)
            .returning(conversations.c.key)
        )
        self._delete = delete(turns).where(one_of(_DIALECT, turns.c.message_id))

    async def commit(self, new: Sequence[Mapping[str, Any]], published: Sequence[str]) -> set[str]:
        """Write turns, each of another conversation and message, and mark earlier ones, in one transaction.

        Returns the ids of the messages whose turns were written; see `Conversations.commit` for the others.
        """
        given = {**self._rows.given(new), **keys(_DIALECT, published)}
        try:
            return {message_id for (message_id,) in await self._direct.run(self._whole, given)}
        except IntegrityConstraintViolationError:
            # A message has a turn of another conversation already; all of this was undone.
            return await self._commit_stepwise(new, published)

    async def mark(self, published: Sequence[str]) -> None:
        """Remember that the responses of these turns are on the broker."""
        await self._direct.run(self._mark_alone, keys(_DIALECT, published))

    async def _commit_stepwise(self, new: Sequence[Mapping[str, Any]], published: Sequence[str]) -> set[str]:
        async with self._db.write() as connection:
            await connection.execute(self._mark, keys(_DIALECT, published))
            found = await connection.execute(
                self._revisions, keys(_DIALECT, (row["channel_id"] for row in new))
            )
            revisions = {row.id: row.revision for row in found}
            new = [row for row in new if row["channel_revision"] in (None, revisions.get(row["channel_id"]))]
            # A turn's number is unique in its conversation: of two processes that write the same one, the
            # second waits here for the first, and then inserts nothing. They come in order of their keys, so
            # two batches never wait for each other.
            inserted = {
                row.message_id for row in await connection.execute(self._insert, self._turn_rows.given(new))
            }
            mine = [row for row in new if row["message_id"] in inserted]
            moved: set[str] = set()
            for statement, part in (
                (self._open, [row for row in mine if row["number"] == 1]),
                (self._advance, [row for row in mine if row["number"] != 1]),
            ):
                if part:
                    given = self._conversation_rows.given(map(_conversation, part))
                    moved.update(row.key for row in await connection.execute(statement, given))
            lost = [row["message_id"] for row in mine if row["conversation_key"] not in moved]
            if lost:
                await connection.execute(self._delete, keys(_DIALECT, lost))
        return inserted.difference(lost)


def _conversation(row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "key": row["conversation_key"],
        "channel_id": row["channel_id"],
        "user_id": row["user_id"],
        "session": row["session"],
        "message_counter": row["last_counter"],
        "turns": row["number"],
        "updated_at": row["created_at"],
    }


def _mark() -> Any:
    return update(turns).where(one_of(_DIALECT, turns.c.message_id)).values(published=True)


def _whole(rows: Rows) -> Any:
    each = rows.source.subquery("each")
    # A join, which looks each channel up by its key: for a condition the planner may make a list of them all.
    given = (
        select(*each.c, channels.c.revision.label("revision_now"))
        .select_from(each.outerjoin(channels, channels.c.id == each.c.channel_id))
        .cte("given")
    )
    same_channel = or_(given.c.channel_revision.is_(None), given.c.channel_revision == given.c.revision_now)
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
            same_channel,
        )
        .returning(conversations.c.key)
        .cte("advanced")
    )
    first = select(given.c.conversation_key, given.c.channel_id, given.c.user_id, *now_known.values()).where(
        given.c.number == 1, same_channel
    )
    opened = (
        postgresql.insert(conversations)
        .from_select(["key", "channel_id", "user_id", *now_known], first)
        .on_conflict_do_nothing()
        .returning(conversations.c.key)
        .cte("opened")
    )
    moved = select(advanced.c.key).union_all(select(opened.c.key))
    names = [column.name for column in turns.c]
    written = select(*(given.c[name] for name in names)).where(given.c.conversation_key.in_(moved))
    return (
        postgresql.insert(turns)
        .from_select(names, written)
        .returning(turns.c.message_id)
        .add_cte(_mark().returning(turns.c.message_id).cte("marked"))
    )
