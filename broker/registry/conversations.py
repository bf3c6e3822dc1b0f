"""Conversations and turns, as the bot worker loads and writes them: many at a time, in a few statements."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Row, select, update

from broker.models.records import UserMessage, now
from broker.partitions import conversation_key
from broker.registry.channels import channel_of
from broker.registry.database import Database
from broker.registry.records import Channel, Conversation, Turn
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


class _Answered(Exception):
    """Some messages of a batch have a turn already."""

    def __init__(self, message_ids: set[str]) -> None:
        super().__init__()
        self.message_ids = message_ids


class Conversations:
    """Loads and commits turns. `commit` compares and sets: whoever worked on old knowledge is told so."""

    def __init__(self, database: Database) -> None:
        self._db = database

    async def load(self, messages: Sequence[UserMessage]) -> list[Loaded]:
        """Load what is known of each message, in three queries whatever their number."""
        keys = [conversation_key(message.channel_id, message.user.id) for message in messages]
        channel_ids = sorted({message.channel_id for message in messages})
        async with self._db.read() as connection:
            found_channels = await connection.execute(
                select(channels).where(channels.c.id.in_(channel_ids))
            )
            by_channel = {row.id: channel_of(row) for row in found_channels}
            found = await connection.execute(select(conversations).where(conversations.c.key.in_(sorted(set(keys)))))
            by_key = {row.key: _conversation_of(row) for row in found}
            ids = sorted({message.id for message in messages})
            by_id = {
                row.message_id: turn_of(row)
                for row in await connection.execute(select(turns).where(turns.c.message_id.in_(ids)))
            }
        return [
            Loaded(
                by_channel.get(message.channel_id),
                by_key.get(key) or Conversation(key, message.channel_id, message.user.id, {}, 0, 0),
                by_id.get(message.id),
            )
            for message, key in zip(messages, keys, strict=True)
        ]

    async def commit(self, new: Sequence[NewTurn]) -> list[bool]:
        """Write turns with their conversations in one transaction.

        An entry is False, and nothing of it written, where its conversation has moved on since it was loaded, or
        its message has a turn already.
        """
        left = list(new)
        while left:
            try:
                written = await self._commit(left)
            except _Answered as known:
                # Undone: the others are written without those whose message has a turn already.
                left = [entry for entry in left if entry.turn.message_id not in known.message_ids]
                continue
            return [entry.turn.message_id in written for entry in new]
        return [False] * len(new)

    async def _commit(self, new: Sequence[NewTurn]) -> set[str]:
        """Write what can be written of a batch, and return its message ids; raises _Answered, having undone all."""
        # One turn a conversation, in order of their keys, so that two workers never wait for each other.
        by_key: dict[str, NewTurn] = {}
        for entry in sorted(new, key=lambda entry: (entry.turn.conversation_key, entry.turn.number)):
            by_key.setdefault(entry.turn.conversation_key, entry)
        async with self._db.write() as connection:
            insert = self._db.insert(conversations).values(
                [_conversation_row(entry.conversation) for entry in by_key.values()]
            )
            changed = ("session", "message_counter", "turns", "updated_at")
            moved = await connection.execute(
                insert.on_conflict_do_update(
                    index_elements=[conversations.c.key],
                    set_={name: insert.excluded[name] for name in changed},
                    where=conversations.c.turns == insert.excluded.turns - 1,
                ).returning(conversations.c.key)
            )
            current = [by_key[row.key] for row in moved]
            if not current:
                return set()
            kept = await connection.execute(
                self._db.insert(turns)
                .values([_turn_row(entry) for entry in current])
                .on_conflict_do_nothing(index_elements=[turns.c.message_id])
                .returning(turns.c.message_id)
            )
            written = {row.message_id for row in kept}
            answered = {entry.turn.message_id for entry in current} - written
            if answered:
                raise _Answered(answered)
            return written

    async def mark_published(self, message_ids: Sequence[str]) -> None:
        """Remember that the responses of these turns are on the broker."""
        marked = update(turns).where(turns.c.message_id.in_(sorted(set(message_ids)))).values(published=True)
        async with self._db.write() as connection:
            await connection.execute(marked)


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
