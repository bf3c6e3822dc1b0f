"""The embedded broker's file: queue messages in SQLite, used from one thread."""

import fcntl
import os
import sqlite3
from collections.abc import Iterable, Sequence
from functools import cache
from itertools import chain
from pathlib import Path
from typing import IO

from pydantic_core import from_json, to_json

from broker.errors import BrokerError, BrokerUnavailable, TopologyMismatch, Unpublishable
from broker.port import Envelope
from broker.private_files import private_database
from broker.room import weight
from broker.topology import Topology, inbound_queue, outbound_queue

_SCHEMA = """
CREATE TABLE IF NOT EXISTS message (
    number INTEGER PRIMARY KEY,
    queue TEXT NOT NULL,
    id TEXT NOT NULL,
    routing_key TEXT NOT NULL,
    headers BLOB NOT NULL,
    body BLOB NOT NULL,
    returned INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX IF NOT EXISTS message_queue ON message (queue, number);
CREATE TABLE IF NOT EXISTS deployment (partitions INTEGER NOT NULL);
"""

# A batch is one statement, and so a transaction of its own. The thread needs the interpreter's lock again after each
# statement, and may wait 5 ms for it while the event loop is busy. A row without a queue is one to be deleted.
_CHANGES = """
CREATE TEMP VIEW change AS
    SELECT NULL AS number, NULL AS queue, NULL AS id, NULL AS routing_key, NULL AS headers, NULL AS body;
CREATE TEMP TRIGGER put INSTEAD OF INSERT ON change WHEN NEW.queue IS NOT NULL BEGIN
    INSERT INTO message (number, queue, id, routing_key, headers, body)
    VALUES (NEW.number, NEW.queue, NEW.id, NEW.routing_key, NEW.headers, NEW.body);
END;
CREATE TEMP TRIGGER take INSTEAD OF INSERT ON change WHEN NEW.queue IS NULL BEGIN
    DELETE FROM message WHERE number = NEW.number;
END;
"""
#: Rows in one statement, and as many texts of it: what is more takes several, as one transaction.
_MOST_ROWS = 128

_FETCH = (
    "SELECT id, body, routing_key, headers, number, returned FROM message"
    " WHERE queue = ? AND number > ? ORDER BY number LIMIT ?"
)
_COUNT = "UPDATE message SET returned = returned + 1 WHERE queue = ? AND number > ? AND number <= ?"

#: Number of the message that a check writes and deletes in one transaction; those in queues count from 1.
_PROBE = 0


#: What is wrong with a message and not with the file: a text that is none in UTF-8, a body beyond SQLite's gigabyte.
_OF_A_MESSAGE = (ValueError, OverflowError, sqlite3.DataError)

#: What one publish writes: for each queue that takes the message its number there, the queue and the message.
Publication = Sequence[tuple[int, str, Envelope]]

#: Number, queue, id, routing key, headers and body; of what is to be deleted, the number alone.
_Change = tuple[int, str | None, str | None, str | None, bytes | None, bytes | None]


class QueueFile:
    """The file, opened for this process alone. Every method blocks: call them from one thread.

    Raises BrokerError where another process has it or it is no such file, TopologyMismatch where messages
    wait in another number of partitions than the topology's.
    """

    def __init__(self, path: Path, topology: Topology) -> None:
        private_database(path)
        self._lock = _lock(path.with_name(path.name + ".lock"))
        try:
            self._connection = sqlite3.connect(
                path, isolation_level=None, check_same_thread=False, cached_statements=2 * _MOST_ROWS
            )
            self._connection.execute("PRAGMA journal_mode=WAL")
            # FULL, so that a publish that returned survives also the loss of power.
            self._connection.execute("PRAGMA synchronous=FULL")
            # What is inserted into a view is gathered first, and need not see the disk twice.
            self._connection.execute("PRAGMA temp_store=MEMORY")
            self._connection.executescript(_SCHEMA)
            self._connection.executescript(_CHANGES)
            self._complete()
            self._check_partitions(topology.partitions)
        except sqlite3.Error as error:
            self._lock.close()
            raise BrokerError(f"The queues' file {path} cannot be used: {error}") from error
        except BaseException:
            self._lock.close()
            raise

    def highest(self) -> int:
        """Return the highest number in use; 0 for an empty file."""
        (number,) = self._connection.execute("SELECT max(number) FROM message").fetchone()
        return int(number or 0)

    def apply(self, publications: Sequence[Publication], done: Sequence[int]) -> None:
        """Write messages and delete others by their numbers, as one transaction, durable when it returns.

        Raises BrokerUnavailable where that fails, and Unpublishable where one of the messages cannot be written,
        whenever it is tried; nothing of it happened then.
        """
        connection = self._connection
        try:
            rows = [*_put(publications), *((number, None, None, None, None, None) for number in done)]
            if len(rows) <= _MOST_ROWS:
                _change(connection, rows)
                return
            connection.execute("BEGIN IMMEDIATE")
            for start in range(0, len(rows), _MOST_ROWS):
                _change(connection, rows[start : start + _MOST_ROWS])
            connection.execute("COMMIT")
        except BaseException as error:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            if isinstance(error, _OF_A_MESSAGE):
                raise Unpublishable(f"It cannot be written to the queues' file: {error}") from error
            if isinstance(error, sqlite3.Error):
                raise BrokerUnavailable(f"The queues' file cannot be written: {error}") from error
            raise

    def check(self) -> None:
        """Write as a publish and its acknowledgement would; raises BrokerUnavailable where that fails."""
        probe = Envelope("", b"\0" * 8192)
        self.apply([[(_PROBE, "", probe)]], [_PROBE])

    def fetch(
        self, queue: str, after: int, limit: int, most: int, handed_out: int
    ) -> tuple[list[Envelope], int]:
        """Return up to `limit` messages of a queue with numbers above `after` that weigh up to `most`, in order.

        And the weight of the next where that had no room, 0 otherwise. Those with numbers up to `handed_out` were
        handed out before: that is counted, and written before they are handed out again, so that the count survives
        what they may do to this process.
        """
        found: list[Envelope] = []
        left = most
        next_weight = 0
        try:
            rows = self._connection.execute(_FETCH, (queue, after, limit))
            for id_, body, key, headers, number, returned in rows:
                weighs = weight(body)
                if weighs > left:
                    next_weight = weighs
                    break
                left -= weighs
                again = 1 if number <= handed_out else 0
                found.append(Envelope(id_, body, key, from_json(headers), number, returned + again))
            rows.close()
            if found and after < handed_out:
                last = min(handed_out, found[-1].tag)
                self._connection.execute(_COUNT, (queue, after, last))
        except sqlite3.Error as error:
            raise BrokerUnavailable(f"The queues' file cannot be read: {error}") from error
        return found, next_weight

    def close(self) -> None:
        """Close the file and let go of its lock."""
        self._connection.close()
        self._lock.close()

    def _complete(self) -> None:
        # A file of an earlier version has one column less.
        if "returned" not in {row[1] for row in self._connection.execute("PRAGMA table_info(message)")}:
            self._connection.execute("ALTER TABLE message ADD COLUMN returned INTEGER NOT NULL DEFAULT 0")

    def _check_partitions(self, wanted: int) -> None:
        row = self._connection.execute("SELECT partitions FROM deployment").fetchone()
        if row is None:
            self._connection.execute("INSERT INTO deployment VALUES (?)", (wanted,))
            return
        if row[0] == wanted:
            return
        waiting = self._connection.execute(
            "SELECT count(*) FROM message WHERE queue GLOB ? OR queue GLOB ?",
            (inbound_queue("p*"), outbound_queue("p*")),
        ).fetchone()[0]
        if waiting:
            raise TopologyMismatch(
                f"The queues were made with {row[0]} partitions, the settings say {wanted}, and {waiting} "
                f"messages wait in them. Set POSTBOTE_PARTITIONS={row[0]} once more and let them drain first."
            )
        self._connection.execute("UPDATE deployment SET partitions = ?", (wanted,))


def _put(publications: Iterable[Publication]) -> Iterable[_Change]:
    for publication in publications:
        for number, queue, envelope in publication:
            headers = to_json(dict(envelope.headers)) if envelope.headers else b"{}"
            yield number, queue, envelope.id, envelope.routing_key, headers, envelope.body


def _change(connection: sqlite3.Connection, rows: Sequence[_Change]) -> None:
    if rows:
        connection.execute(_change_of(len(rows)), list(chain.from_iterable(rows)))


@cache
def _change_of(rows: int) -> str:
    row = "(?, ?, ?, ?, ?, ?)"
    return f"INSERT INTO change VALUES {', '.join([row] * rows)}"  # noqa: S608 - of question marks


def _lock(path: Path) -> IO[bytes]:
    # Held for the life of the process; the system lets go of it when the process dies, however it does.
    try:
        file = os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "ab")
    except OSError as error:
        raise BrokerError(f"The queues' lock {path} cannot be used: {error.strerror}") from None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        raise BrokerError(
            f"Another `postbote run` uses {path.parent}: stop it, or set POSTBOTE_DATA_DIR to another folder."
        ) from None
    return file
