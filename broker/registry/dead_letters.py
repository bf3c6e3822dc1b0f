"""Dead letters: what could not be processed, kept whole with the reason."""

import re
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Row, Select, func, literal_column, select, update

from broker.registry.database import Database
from broker.registry.pages import cursor_of, page_of, read_cursor
from broker.registry.records import DeadLetter, Page
from broker.registry.tables import dead_letters

#: What the columns hold.
LONGEST_STAGE, LONGEST_CHANNEL_ID = 32, 64
#: What we publish names its channel in the routing key, also where the broker gave it up and says no more.
_OUR_KEY = re.compile(r"(?:message|response)\.([A-Za-z0-9_-]{1,64})(?:\.[a-z_]+)?\.p[0-9]+")
#: Stages that see such keys; the keys of what outside programs publish are their own.
_OURS = frozenset({"bot", "delivery", "broker"})


class DeadLetters:
    """Reads and writes dead letters."""

    def __init__(self, database: Database) -> None:
        self._db = database

    async def add(self, letters: Sequence[DeadLetter]) -> None:
        """Keep dead letters; one that is there already stays as it is.

        Unless it was redriven: then it died once more, and is to be redriven again.
        """
        rows = [{name: getattr(letter, name) for name in _FIELDS} for letter in letters]
        for row in rows:
            # What came by the queue may claim anything; it is kept all the same.
            row["stage"] = row["stage"][:LONGEST_STAGE]
            row["channel_id"] = _channel_of(row)
        insert = self._db.insert(dead_letters)
        changed = {
            name: insert.excluded[name] for name in ("stage", "reason", "detail", "headers", "created_at")
        }
        upsert = insert.on_conflict_do_update(
            index_elements=[dead_letters.c.id],
            set_={**changed, "redriven_at": None},
            where=dead_letters.c.redriven_at.is_not(None),
        )
        async with self._db.write() as connection:
            if rows:
                await connection.execute(upsert, rows)

    async def page(
        self, cursor: str | None, limit: int, *, stage: str | None = None, channel_id: str | None = None
    ) -> Page:
        """Return a page of dead letters, newest first; raises ValueError for a cursor that is none."""
        before = None if cursor is None else read_cursor(cursor, int)[0]
        query = _newest_of(stage, channel_id, before).limit(limit + 1)
        async with self._db.listing() as connection:
            rows = (await connection.execute(query)).all()
        return page_of(rows, limit, _letter_of, lambda row: cursor_of(row.number))

    async def get(self, letter_id: str) -> DeadLetter | None:
        """Return a dead letter, or None."""
        async with self._db.read() as connection:
            found = await connection.execute(select(dead_letters).where(dead_letters.c.id == letter_id))
            row = found.first()
        return _letter_of(row) if row is not None else None

    async def to_redrive(
        self,
        cursor: str | None,
        limit: int,
        *,
        stage: str | None = None,
        channel_id: str | None = None,
        since: datetime | None = None,
    ) -> Page:
        """Return a page of the ids of dead letters that were not redriven, oldest first.

        Its pages end with the newest letter that there was at the first one, so that whoever redrives along
        them comes to an end, also where everything dies again. Raises ValueError for a cursor that is none.
        """
        async with self._db.read() as connection:
            if cursor is None:
                after, last = 0, await connection.scalar(select(func.max(dead_letters.c.number))) or 0
            else:
                after, last = read_cursor(cursor, int, int)
            query = select(*_KEYS).where(
                *_filters(stage, channel_id),
                dead_letters.c.redriven_at.is_(None),
                dead_letters.c.number > after,
                dead_letters.c.number <= last,
            )
            if since is not None:
                query = query.where(dead_letters.c.created_at >= since)
            rows = (await connection.execute(query.order_by(dead_letters.c.number).limit(limit + 1))).all()
        return page_of(rows, limit, lambda row: row.id, lambda row: cursor_of(row.number, last))

    async def redriven(self, letter_id: str, at: datetime) -> None:
        """Note that a dead letter was published again."""
        async with self._db.write() as connection:
            await connection.execute(
                update(dead_letters).where(dead_letters.c.id == letter_id).values(redriven_at=at)
            )


_FIELDS = ("id", "stage", "reason", "detail", "channel_id", "routing_key", "headers", "body", "created_at")
_SHOWN = (*_FIELDS, "redriven_at")
#: The order of those that are filtered, and stage and channel in one: as broker/registry/partial_indexes.py has them.
NEWEST_FIRST = -dead_letters.c.number
STAGE_AND_CHANNEL: ColumnElement[str] = (
    dead_letters.c.stage + literal_column("'/'") + dead_letters.c.channel_id
)
#: Bodies may be large, and a page of them is not needed to know which letters there are.
_KEYS = [dead_letters.c.number, dead_letters.c.id]


def _newest_of(stage: str | None, channel_id: str | None, before: int | None) -> Select[Any]:
    """Select the newest dead letters, each filter along an index of its own, the only one with this order."""
    query = select(dead_letters)
    if stage is None and channel_id is None:
        if before is not None:
            query = query.where(dead_letters.c.number < before)
        return query.order_by(dead_letters.c.number.desc())
    if stage is not None and channel_id is not None:
        query = query.where(f"{stage}/{channel_id}" == STAGE_AND_CHANNEL)
    else:
        query = query.where(*_filters(stage, channel_id))
    if before is not None:
        query = query.where(-before < NEWEST_FIRST)
    return query.order_by(NEWEST_FIRST)


def _filters(stage: str | None, channel_id: str | None) -> list[ColumnElement[bool]]:
    wanted = ((dead_letters.c.stage, stage), (dead_letters.c.channel_id, channel_id))
    return [column == value for column, value in wanted if value is not None]


def _channel_of(row: dict[str, Any]) -> str | None:
    given: str | None = row["channel_id"]
    if given is not None:
        return given if len(given) <= LONGEST_CHANNEL_ID else None
    key = _OUR_KEY.fullmatch(row["routing_key"]) if row["stage"] in _OURS else None
    return key[1] if key is not None else None


def _letter_of(row: Row[Any]) -> DeadLetter:
    return DeadLetter(**{name: getattr(row, name) for name in _SHOWN})
