"""Dead letters: what could not be processed, kept whole with the reason."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Row, select

from broker.registry.database import Database
from broker.registry.pages import cursor_of, page_of, read_cursor
from broker.registry.records import DeadLetter, Page
from broker.registry.tables import dead_letters

#: What the columns hold.
LONGEST_STAGE, LONGEST_CHANNEL_ID = 32, 64


class DeadLetters:
    """Reads and writes dead letters."""

    def __init__(self, database: Database) -> None:
        self._db = database

    async def add(self, letters: Sequence[DeadLetter]) -> None:
        """Keep dead letters; one that is there already stays as it is."""
        rows = [{name: getattr(letter, name) for name in _FIELDS} for letter in letters]
        for row in rows:
            # What came by the queue may claim anything; it is kept all the same.
            row["stage"] = row["stage"][:LONGEST_STAGE]
            if row["channel_id"] is not None and len(row["channel_id"]) > LONGEST_CHANNEL_ID:
                row["channel_id"] = None
        async with self._db.write() as connection:
            if rows:
                await connection.execute(self._db.insert(dead_letters).on_conflict_do_nothing(), rows)

    async def page(self, cursor: str | None, limit: int) -> Page:
        """Return a page of dead letters, newest first; raises ValueError for a cursor that is none."""
        query = select(dead_letters)
        if cursor is not None:
            query = query.where(dead_letters.c.number < read_cursor(cursor, int)[0])
        async with self._db.read() as connection:
            rows = (
                await connection.execute(query.order_by(dead_letters.c.number.desc()).limit(limit + 1))
            ).all()
        return page_of(rows, limit, _letter_of, lambda row: cursor_of(row.number))

    async def get(self, letter_id: str) -> DeadLetter | None:
        """Return a dead letter, or None."""
        async with self._db.read() as connection:
            found = await connection.execute(select(dead_letters).where(dead_letters.c.id == letter_id))
            row = found.first()
        return _letter_of(row) if row is not None else None


_FIELDS = ("id", "stage", "reason", "detail", "channel_id", "routing_key", "headers", "body", "created_at")
_SHOWN = (*_FIELDS, "redriven_at")


def _letter_of(row: Row[Any]) -> DeadLetter:
    return DeadLetter(**{name: getattr(row, name) for name in _SHOWN})
