"""Conversations and turns, as the bot worker loads and writes them: many at a time, in a few statements."""

from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any, Protocol

from sqlalchemy import Row
from sqlalchemy.ext.asyncio import AsyncConnection

from broker.models.records import UserMessage
from broker.partitions import conversation_key
from broker.registry.channels import channel_of
from broker.registry.database import Database
from broker.registry.records import Channel, Conversation, Turn
from broker.registry.rows import Rows, keys
from broker.registry.turn_statements import TurnStatements

#: Channels remembered as they were when they were last met, of about 1 KB; the one met longest ago goes first.
MOST_CHANNELS = 50_000


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
    #: The revision of its channel that its responses were made for; None where it has none.
    channel_revision: int | None = None
    #: How long its message, its responses and its session are as JSON, in bytes, about.
    size: int = 0


class TurnWriter(Protocol):
    """Writes turns with their conversations, for one dialect."""

    async def commit(self, new: Sequence[Mapping[str, Any]], published: Sequence[str]) -> set[str]:
        """Write turns and mark earlier ones; returns the ids of the messages whose turns were written."""
        ...

    async def mark(self, published: Sequence[str]) -> None:
        """Remember that the responses of these turns are on the broker."""
        ...


class Conversations:
    """Loads and commits turns. `commit` compares and sets: whoever worked on old knowledge is told so."""

    def __init__(self, database: Database) -> None:
        self._db = database
        self._statements = TurnStatements(database.dialect)
        self._writer = _writer(database, self._statements.rows)
        #: As they were at their last revision that was met.
        self._channels: OrderedDict[str, Channel] = OrderedDict()

    async def load(self, messages: Sequence[UserMessage]) -> list[Loaded]:
        """Load what is known of each message, in one query whatever their number, as it is at one moment.

        Channels that changed and turns that were written before take one more each.
        """
        keyed = [conversation_key(message.channel_id, message.user.id) for message in messages]
        wanted = [
            {"place": place, "message_id": message.id, "channel_id": message.channel_id, "key": key}
            for place, (message, key) in enumerate(zip(messages, keyed, strict=True))
        ]
        statements, dialect = self._statements, self._db.dialect
        async with self._db.read() as connection:
            found = await connection.execute(statements.load, statements.wanted.given(wanted))
            rows = sorted(map(tuple, found), key=itemgetter(0))
            # Of these messages alone: what is remembered of the others may go meanwhile.
            channels: dict[str, Channel | None] = {}
            for message, (_, revision, *_) in zip(messages, rows, strict=True):
                if revision is not None:
                    channels[message.channel_id] = self._known(message.channel_id, revision)
            if unknown := [channel_id for channel_id, channel in channels.items() if channel is None]:
                channels |= await self._read_channels(connection, unknown)
            by_id: dict[str, Turn] = {}
            if written := [row[2] for row in rows if row[2] is not None]:
                earlier = await connection.execute(statements.turns, keys(dialect, written))
                by_id = {row.message_id: turn_of(row) for row in earlier}
        return [
            Loaded(
                None if revision is None else channels[message.channel_id],
                Conversation(
                    key, message.channel_id, message.user.id, session or b"{}", counter or 0, number or 0
                ),
                by_id.get(message_id),
            )
            for message, key, (_, revision, message_id, session, counter, number) in zip(
                messages, keyed, rows, strict=True
            )
        ]

    async def commit(self, new: Sequence[NewTurn], published: Sequence[str] = ()) -> list[bool]:
        """Write turns with their conversations, and mark earlier ones as published, in one transaction.

        An entry is False, and nothing of it written, where its conversation has moved on or its channel was changed
        since they were loaded, or its message has a turn already, or an entry before it is of the same conversation
        or message.
        """
        order = _first_of_each(new)
        written = await self._writer.commit([_row(new[index]) for index in order], published)
        mine = {index for index in order if new[index].turn.message_id in written}
        return [index in mine for index in range(len(new))]

    async def mark_published(self, message_ids: Sequence[str]) -> None:
        """Remember that the responses of these turns are on the broker."""
        await self._writer.mark(message_ids)

    def _known(self, channel_id: str, revision: int) -> Channel | None:
        known = self._channels.get(channel_id)
        if known is None or known.revision != revision:
            return None
        self._channels.move_to_end(channel_id)
        return known

    async def _read_channels(
        self, connection: AsyncConnection, wanted: Iterable[str]
    ) -> dict[str, Channel | None]:
        rows = await connection.execute(self._statements.channels, keys(self._db.dialect, wanted))
        read: dict[str, Channel | None] = {}
        for row in rows:
            channel = read[row.id] = self._channels[row.id] = channel_of(row)
            self._channels.move_to_end(channel.id)
        while len(self._channels) > MOST_CHANNELS:
            self._channels.popitem(last=False)
        return read


def _writer(database: Database, rows: Rows) -> TurnWriter:
    # Each comes with its own driver, of which a process needs one.
    if database.dialect == "sqlite":
        from broker.registry.sqlite_turns import SqliteTurns

        return SqliteTurns(database, rows)
    from broker.registry.postgres_turns import PostgresTurns

    return PostgresTurns(database, rows)


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


def _row(new: NewTurn) -> dict[str, Any]:
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
        "user_id": new.conversation.user_id,
        "session": new.conversation.session,
        "channel_revision": new.channel_revision,
    }


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
