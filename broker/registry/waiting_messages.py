"""Messages that wait for their bot in the database: those of lanes that gave way, in order, lane by lane.

Only who holds a partition's queue writes and reads those of that partition, so nothing here is locked or leased. A
row says that its message is not done, wherever else that message is: in memory, or on its queue once more.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from sqlalchemy import (
    Column,
    ColumnElement,
    Integer,
    Row,
    Select,
    bindparam,
    delete,
    func,
    select,
    text,
    true,
    update,
)

from broker.models.records import now
from broker.port import HeaderValue
from broker.registry.columns import Counting
from broker.registry.database import Database, insert_into
from broker.registry.rows import Rows
from broker.registry.tables import waiting_messages

#: A page of a lane has no more than this, in bytes of messages, beside its first.
PAGE_BYTES = 16 * 1024

_row = waiting_messages.c
_GIVEN = [column for column in waiting_messages.c if column.name != "number"]
#: The channels of an index's beginnings, one look each, as in broker.registry.due_lanes.
_CHANNELS_OF = text(
    """
WITH RECURSIVE beginnings (channel_id) AS (
    SELECT min(channel_id) FROM waiting_messages WHERE partition = :partition
    UNION ALL
    SELECT (SELECT min(message.channel_id) FROM waiting_messages AS message
            WHERE message.partition = :partition AND message.channel_id > beginnings.channel_id)
    FROM beginnings WHERE beginnings.channel_id IS NOT NULL
)
SELECT channel_id FROM beginnings WHERE channel_id IS NOT NULL
"""
)


@dataclass(frozen=True, slots=True)
class WaitingMessage:
    """A message that waits: as it came on its queue, and where it belongs."""

    partition: int
    channel_id: str
    conversation_key: str
    message_id: str
    body: bytes
    routing_key: str
    headers: Mapping[str, HeaderValue] = field(default_factory=dict)
    #: How often it was in the hands of a session that did not finish it.
    returned: int = 0
    #: Its place in its lane; 0 before it is written.
    number: int = 0


@dataclass(frozen=True, slots=True)
class WaitingPage:
    """The next messages of a lane, in order, and whether there were more."""

    messages: Sequence[WaitingMessage]
    more: bool


class WaitingMessages:
    """Reads and writes messages that wait. All methods raise RegistryUnavailable."""

    def __init__(self, database: Database) -> None:
        self._db = database
        self._statements = _statements(database.dialect)

    async def add(self, messages: Sequence[WaitingMessage]) -> list[int]:
        """Put messages behind those of their lanes, in one transaction; returns the number of each.

        One that is there already stays where it is, and keeps its number.
        """
        at = now()
        unique = {(each.conversation_key, each.message_id): each for each in reversed(messages)}
        rows = [_values(each, at) for each in reversed(unique.values())]
        async with self._db.single() as connection:
            found = await connection.execute(self._statements.add, self._statements.given.given(rows))
            numbers = {(row[0], row[1]): row[2] for row in found}
        return [numbers[each.conversation_key, each.message_id] for each in messages]

    async def channels_of(self, partition: int) -> set[str]:
        """Return the channels that have messages waiting in a partition."""
        async with self._db.read() as connection:
            return {row[0] for row in await connection.execute(_CHANNELS_OF, {"partition": partition})}

    async def lanes(self, partition: int, channel_id: str, after: int, limit: int) -> list[tuple[int, str]]:
        """Return the numbers above `after` that wait in a partition for a channel, in order, each with its lane."""
        asked = (
            select(_row.number, _row.conversation_key)
            .where(_row.partition == partition, _row.channel_id == channel_id, _row.number > after)
            .order_by(_row.number)
            .limit(limit)
        )
        async with self._db.read() as connection:
            return [(row[0], row[1]) for row in await connection.execute(asked)]

    async def read(self, lanes: Sequence[tuple[str, int]], limit: int) -> list[WaitingPage]:
        """Take the next messages of lanes in hand, each lane by its conversation and the number to begin after.

        How often each was in somebody's hands before is told, and counted up.
        """
        async with self._db.write() as connection:
            pages = []
            if self._statements.pages is None:
                for key, after in lanes:
                    pages.append((await connection.execute(_page_of(key, after, limit))).all())
            else:
                wanted = [{"place": n, "key": key, "after": after} for n, (key, after) in enumerate(lanes)]
                named = {**self._statements.wanted.given(wanted), "most": limit}
                pages = [[] for _ in lanes]
                for row in await connection.execute(self._statements.pages, named):
                    pages[row.place].append(row)
            numbers = [{"number": row.number} for page in pages for row in page]
            if numbers:
                await connection.execute(self._statements.taken, self._statements.numbers.given(numbers))
        return [
            WaitingPage([_message_of(row) for row in page], bool(page) and _more(page, limit))
            for page in pages
        ]

    async def done(self, numbers: Sequence[int]) -> None:
        """Delete messages that are done."""
        given = self._statements.numbers.given({"number": number} for number in numbers)
        async with self._db.single() as connection:
            await connection.execute(self._statements.done, given)

    async def counts(self) -> dict[str, int]:
        """Count the messages that wait, by channel; reads an index from end to end."""
        asked = select(_row.channel_id, func.count()).group_by(_row.channel_id)
        async with self._db.read() as connection:
            return {row[0]: row[1] for row in await connection.execute(asked)}


class _Statements:
    """The statements, made once: what they are given varies, and their text does not."""

    def __init__(self, dialect: str) -> None:
        self.given = Rows(dialect, _GIVEN)
        insert = insert_into(dialect, waiting_messages).from_select(self.given.names, self.given.source)
        self.add = insert.on_conflict_do_update(
            index_elements=[_row.conversation_key, _row.message_id],
            # Changes nothing, and so returns what is there.
            set_={"partition": insert.excluded.partition},
        ).returning(_row.conversation_key, _row.message_id, _row.number)

        self.numbers = Rows(dialect, [Column("number", Counting)])
        numbers = self.numbers.source.subquery("numbers")
        those = _row.number.in_(select(numbers.c.number))
        self.done = delete(waiting_messages).where(those)
        self.taken = update(waiting_messages).where(those).values(returned=_row.returned + 1)

        self.wanted = Rows(
            dialect,
            [Column("place", Integer), Column("key", _row.conversation_key.type), Column("after", Counting)],
        )
        self.pages: Select[Any] | None = None
        if dialect != "sqlite":
            wanted = self.wanted.source.subquery("wanted")
            first = (
                select(waiting_messages)
                .where(_row.conversation_key == wanted.c.key, _row.number > wanted.c.after)
                .order_by(_row.number)
                .limit(bindparam("most", type_=Integer))
                .lateral("first")
            )
            joined = select(wanted.c.place, first).select_from(wanted.join(first, true()))
            self.pages = _bounded(joined, func.octet_length)


@cache
def _statements(dialect: str) -> _Statements:
    return _Statements(dialect)


def _page_of(key: str, after: int, limit: int) -> Select[Any]:
    first = (
        select(waiting_messages)
        .where(_row.conversation_key == key, _row.number > after)
        .order_by(_row.number)
        .limit(limit)
    )
    return _bounded(first, func.length)


def _bounded(pages: Select[Any], size: Callable[[ColumnElement[Any]], ColumnElement[Any]]) -> Select[Any]:
    """Select of each lane's page up to `PAGE_BYTES`, and its first in any case; each row says how many there were."""
    page = pages.subquery("page")
    lane = page.c.conversation_key
    before = func.sum(size(page.c.body)).over(partition_by=lane, order_by=page.c.number, rows=(None, -1))
    found = func.count().over(partition_by=lane)
    added = select(page, func.coalesce(before, 0).label("bytes_before"), found.label("found")).subquery(
        "added"
    )
    return select(added).where(added.c.bytes_before < PAGE_BYTES).order_by(added.c.number)


def _more(page: Sequence[Row[Any]], limit: int) -> bool:
    found: int = page[0].found
    return found == limit or found > len(page)


def _values(message: WaitingMessage, at: Any) -> dict[str, Any]:
    return {
        "partition": message.partition,
        "channel_id": message.channel_id,
        "conversation_key": message.conversation_key,
        "message_id": message.message_id,
        "body": message.body.decode(),
        "routing_key": message.routing_key,
        "headers": dict(message.headers),
        "returned": message.returned,
        "created_at": at,
    }


def _message_of(row: Row[Any]) -> WaitingMessage:
    return WaitingMessage(
        partition=row.partition,
        channel_id=row.channel_id,
        conversation_key=row.conversation_key,
        message_id=row.message_id,
        body=row.body.encode(),
        routing_key=row.routing_key,
        headers=row.headers,
        returned=row.returned,
        number=row.number,
    )
