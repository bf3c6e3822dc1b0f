"""Turns on SQLite: a batch is written by one statement, which is a transaction of its own.

The connection's thread needs the interpreter's lock again after each statement and each row, and may wait 5 ms for it
while the event loop is busy. So what a batch has to do is written into triggers on a view, into which its rows are
inserted.
"""

import sqlite3
from collections.abc import Mapping, Sequence
from itertools import count
from typing import Any

from pydantic_core import from_json

from broker.registry.database import Database
from broker.registry.rows import Rows, keys
from broker.registry.tables import turns

_TURN = [column.name for column in turns.c]
_WHOLE = [*_TURN, "user_id", "session", "channel_revision"]
_GIVEN = [*_WHOLE, "place", "batch"]

#: A row is a turn with its conversation, or with nothing but a message's id the mark that its turn is published.
#: SQLite has one writer at a time: what is so when a turn is inserted is so until the end. The table `written` is the
#: connection's own and never on the disk: which places of the last batches were written.
_MADE_ONCE = f"""
CREATE TEMP TABLE IF NOT EXISTS written (place INTEGER PRIMARY KEY, batch INTEGER NOT NULL);
CREATE TEMP VIEW IF NOT EXISTS given_turn AS SELECT {", ".join(f"NULL AS {name}" for name in _GIVEN)};
CREATE TEMP TRIGGER IF NOT EXISTS mark_turn INSTEAD OF INSERT ON given_turn WHEN NEW.number IS NULL BEGIN
    UPDATE turns SET published = 1 WHERE message_id = NEW.message_id;
END;
CREATE TEMP TRIGGER IF NOT EXISTS write_turn INSTEAD OF INSERT ON given_turn WHEN NEW.number IS NOT NULL BEGIN
    INSERT INTO turns ({", ".join(_TURN)})
    SELECT {", ".join(f"NEW.{name}" for name in _TURN)}
    WHERE CASE NEW.number
        WHEN 1 THEN NOT EXISTS (SELECT 1 FROM conversations WHERE key = NEW.conversation_key)
        ELSE EXISTS (SELECT 1 FROM conversations WHERE key = NEW.conversation_key AND turns = NEW.number - 1)
    END AND (
        NEW.channel_revision IS NULL
        OR EXISTS (SELECT 1 FROM channels WHERE id = NEW.channel_id AND revision = NEW.channel_revision)
    )
    ON CONFLICT DO NOTHING;
    INSERT INTO written SELECT NEW.place, NEW.batch WHERE changes() > 0
    ON CONFLICT (place) DO UPDATE SET batch = excluded.batch;
    INSERT INTO conversations (key, channel_id, user_id, session, message_counter, turns, updated_at)
    SELECT NEW.conversation_key, NEW.channel_id, NEW.user_id, NEW.session, NEW.last_counter, NEW.number,
        NEW.created_at
    WHERE changes() > 0
    ON CONFLICT (key) DO UPDATE SET session = excluded.session, message_counter = excluded.message_counter,
        turns = excluded.turns, updated_at = excluded.updated_at;
END;
"""  # noqa: S608 - of the columns' names
_WRITE = f"""
INSERT INTO given_turn ({", ".join(_GIVEN)})
SELECT {", ".join(f"json_extract(value, '$[{place}]')" for place in range(len(_WHOLE)))}, key, ? FROM json_each(?)
UNION ALL
SELECT value, {", ".join(["NULL"] * (len(_GIVEN) - 1))} FROM json_each(?)
"""  # noqa: S608
_WRITTEN = "SELECT json_group_array(place) FROM written WHERE batch = ?"
#: Rows that change for each turn: its own, its conversation's, and the one that says so.
_CHANGES = 3
#: Numbers the batches of this process: connections are shared, and so are their tables of what was written.
_BATCHES = count(1)


class SqliteTurns:
    """Writes turns with their conversations."""

    def __init__(self, database: Database, rows: Rows) -> None:
        self._db = database
        self._rows = rows

    async def commit(self, new: Sequence[Mapping[str, Any]], published: Sequence[str]) -> set[str]:
        """Write turns, each of another conversation and message, and mark earlier ones, in one transaction.

        Returns the ids of the messages whose turns were written; see `Conversations.commit` for the others.
        """
        batch = next(_BATCHES)
        given = (batch, self._rows.given(new)["given_rows"], keys("sqlite", published)["given_keys"])
        all_ = _CHANGES * len(new) + len(set(published))

        def write(connection: sqlite3.Connection) -> Sequence[int]:
            before = connection.total_changes
            _execute(connection, given)
            if connection.total_changes - before == all_:
                return range(len(new))
            places: Sequence[int] = from_json(connection.execute(_WRITTEN, (batch,)).fetchall()[0][0])
            return places

        return {new[place]["message_id"] for place in await self._db.in_thread(write)}

    async def mark(self, published: Sequence[str]) -> None:
        """Remember that the responses of these turns are on the broker."""
        await self.commit((), published)


def _execute(connection: sqlite3.Connection, given: Sequence[Any]) -> None:
    try:
        connection.execute(_WRITE, given)
    except sqlite3.OperationalError as error:
        if "no such table: given_turn" not in str(error):
            raise
        connection.executescript(_MADE_ONCE)
        connection.execute(_WRITE, given)
