"""Conversations and turns, as the bot worker loads and writes them: many at a time, in a few statements."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Row, delete, select, update

from broker.models.records import UserMessage, now
from broker.partitions import conversation_key
from broker.registry.channels import channel_of
from broker.registry.database import Database, insert_into
from broker.registry.records import Channel, Conversation, Turn
from broker.registry.rows import Rows, keys, one_of
from broker.registry.tables import channels, conversations, turns


@dataclass(frozen=True, slots=True)
class Loaded:
    """What is known of a message: its channel, its conversation (a new one where there is none), its turn."""

    channel: Channel | None
    conversation: Conversation
    turn: Turn | None


@dataclass(frozen=True, slots=True)
class NewTurn:
    """A turn to be written, and its conversation as it shall be after it."""

    turn: Turn
    conversation: Conversation


class Conversations:
    """Loads and commits turns. `commit` compares and sets: whoever worked on old knowledge is told so."""

    def __init__(self, database: Database) -> None:
        self._db = database
        self._statements = _Statements(database.dialect)

    async def load(self, messages: Sequence[UserMessage]) -> list[Loaded]:
        """Load what is known of each message, in three queries whatever their number."""
        statements, dialect = self._statements, self._db.dialect
        wanted = [conversation_key(message.channel_id, message.user.id) for message in messages]
        async with self._db.read() as connection:
            # The turns last: one that is written meanwhile is found, whatever was read of its conversation.
            found = await connection.execute(
                statements.channels, keys(dialect, (message.channel_id for message in messages))
            )
            by_channel = {row.id: channel_of(row) for row in found}
            found = await connection.execute(statements.conversations, keys(dialect, wanted))
            by_key = {row.key: _conversation_of(row) for row in found}
            found = await connection.execute(
                statements.turns, keys(dialect, (message.id for message in messages))
            )
            by_id = {row.message_id: turn_of(row) for row in found}
        return [
            Loaded(
                by_channel.get(message.channel_id),
                by_key.get(key) or Conversation(key, message.channel_id, message.user.id, {}, 0, 0),
                by_id.get(message.id),
            )
            for message, key in zip(messages, wanted, strict=True)
        ]

    async def commit(self, new: Sequence[NewTurn]) -> list[bool]:
        """Write turns with their conversations, in one transaction and at most four statements.

        An entry is False, and nothing of it written, where its conversation has moved on since it was loaded,
        or its message has a turn already, or an entry before it is of the same conversation or message.
        """
        order = _first_of_each(new)
        statements, dialect = self._statements, self._db.dialect
        async with self._db.write() as connection:
            # A turn's number is unique in its conversation: of two processes that write the same one, the
            # second waits here for the first, and then inserts nothing. They come in order of their keys, so
            # two batches never wait for each other.
            rows = statements.turn_rows.given(_turn_row(new[index]) for index in order)
            inserted = {row.message_id for row in await connection.execute(statements.insert_turns, rows)}
            mine = [index for index in order if new[index].turn.message_id in inserted]
            moved: set[str] = set()
            for statement, part in (
                (statements.open, [new[index].conversation for index in mine if new[index].turn.number == 1]),
                (
                    statements.advance,
                    [new[index].conversation for index in mine if new[index].turn.number != 1],
                ),
            ):
                if part:
                    rows = statements.conversation_rows.given(map(_conversation_row, part))
                    moved.update(row.key for row in await connection.execute(statement, rows))
            lost = [new[index].turn.message_id for index in mine if new[index].conversation.key not in moved]
            if lost:
                await connection.execute(statements.delete_turns, keys(dialect, lost))
        written = {index for index in mine if new[index].conversation.key in moved}
        return [index in written for index in range(len(new))]

    async def mark_published(self, message_ids: Sequence[str]) -> None:
        """Remember that the responses of these turns are on the broker."""
        async with self._db.write() as connection:
            await connection.execute(self._statements.mark_published, keys(self._db.dialect, message_ids))


class _Statements:
    """The statements, made once: what they are given varies, and their text does not."""

    def __init__(self, dialect: str) -> None:
        self.channels = select(channels).where(one_of(dialect, channels.c.id))
        self.conversations = select(conversations).where(one_of(dialect, conversations.c.key))
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


def _first_of_each(new: Sequence[NewTurn]) -> list[int]:
    """Index the first entry of each conversation and message, in order of the conversations' keys."""
    seen: set[tuple[str, str]] = set()
    first = []
    for index, each in enumerate(new):
        names = {("conversation", each.conversation.key), ("message", each.turn.message_id)}
        if not names & seen:
            first.append(index)
        seen |= names
    return sorted(first, key=lambda index: new[index].conversation.key)


def _conversation_row(conversation: Conversation) -> dict[str, Any]:
    return {
        "key": conversation.key,
        "channel_id": conversation.channel_id,
        "user_id": conversation.user_id,
        "session": conversation.session,
        "message_counter": conversation.message_counter,
        "turns": conversation.turns,
        "updated_at": now(),
    }


def _turn_row(new: NewTurn) -> dict[str, Any]:
    turn = new.turn
    return {
        "message_id": turn.message_id,
        "conversation_key": turn.conversation_key,
        "channel_id": turn.channel_id,
        "number": turn.number,
        "message": turn.message,
        "responses": list(turn.responses),
        "last_counter": new.conversation.message_counter,
        "outcome": turn.outcome,
        "published": turn.published,
        "created_at": turn.created_at,
    }


def _conversation_of(row: Row[Any]) -> Conversation:
    return Conversation(row.key, row.channel_id, row.user_id, row.session, row.message_counter, row.turns)


def turn_of(row: Row[Any]) -> Turn:
    """Make a turn of its row."""
    return Turn(
        message_id=row.message_id,
        conversation_key=row.conversation_key,
        channel_id=row.channel_id,
        number=row.number,
        message=row.message,
        responses=row.responses,
        outcome=row.outcome,
        published=row.published,
        created_at=row.created_at,
    )
