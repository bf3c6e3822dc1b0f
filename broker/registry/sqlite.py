"""Connections to SQLite: a thread for each, and one step of it for a statement with its rows."""

import asyncio
import sqlite3
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Self, TypeVar

import aiosqlite
from sqlalchemy.engine import URL
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from broker.ending import to_its_end
from broker.errors import RegistryError
from broker.private_files import private_database

T = TypeVar("T")

#: How long the thread of a connection that could not be opened may take to end, in seconds.
THREAD_S = 1.0
#: Rows that an iteration would take at a time, were there one: all rows are fetched together.
_CHUNK = 64

#: Errors that mean "later", without their extended part: a lock, memory, the disk, the file. ERROR is one of SQL.
LATER = frozenset({
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_NOMEM,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_INTERRUPT,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_PROTOCOL,
})  # fmt: skip

_PRAGMAS = (
    # What was accepted has to survive a loss of power, and in WAL mode, which the migration sets for good,
    # only FULL syncs every commit.
    "PRAGMA synchronous=FULL",
    "PRAGMA foreign_keys=ON",
    # What is inserted into a view is gathered first, and need not see the disk twice.
    "PRAGMA temp_store=MEMORY",
)


def make_engine(file: str, *, statement_s: float, pool: int) -> AsyncEngine:
    """Make an engine of `pool` connections; a statement waits up to `statement_s` seconds for another's lock.

    Raises RegistryError where no file is named, SettingsError where it cannot be opened.
    """
    if not file:
        raise RegistryError("The database's URL names no file: write sqlite:/// and its path.")
    path = Path(file)
    private_database(path)

    async def opened() -> "Connection":
        return await connect(path, statement_s)

    url = URL.create("sqlite+aiosqlite", database=file)
    # The connection that was used last is used next: each has a thread, whose large statements leave it with memory.
    return create_async_engine(url, async_creator=opened, pool_size=pool, pool_use_lifo=True)


async def connect(path: Path, busy_s: float) -> "Connection":
    """Open a connection; its statements wait up to `busy_s` seconds for another process' lock."""

    def opened() -> sqlite3.Connection:
        # We say when a transaction begins (BEGIN IMMEDIATE), not the driver.
        connection = sqlite3.connect(path, timeout=busy_s, isolation_level=None, check_same_thread=False)
        for pragma in _PRAGMAS:
            connection.execute(pragma)
        return connection

    connection = Connection(opened)
    try:
        await connection
    except (sqlite3.Error, asyncio.CancelledError):
        # The library tells the thread to end and does not wait: at the end of the process, the thread would answer an
        # event loop that is closed.
        await to_its_end(asyncio.to_thread(connection.thread_ended, THREAD_S))
        raise
    return connection


class Connection(aiosqlite.Connection):
    """A connection of aiosqlite that changes threads once for each statement, not four times.

    Each change costs tens of microseconds, and up to 5 ms of waiting for the interpreter's lock.
    """

    def __init__(self, opened: Callable[[], sqlite3.Connection]) -> None:
        super().__init__(opened, _CHUNK)
        # A process that fails before it closes its connections has to end all the same.
        self._thread.daemon = True

    def thread_ended(self, within_s: float) -> None:
        """Wait until the connection's thread has ended, at most so many seconds."""
        self._thread.join(within_s)

    def cursor(self) -> "Cursor":  # type: ignore[override]  # Aiosqlite's is a coroutine, and this needs no wait.
        """Return a cursor, without asking the thread for one."""
        return Cursor(self)

    async def in_thread(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Do work in the connection's thread, in one step of it.

        Each statement there is a transaction of its own. What has begun takes place whatever becomes of whoever
        waits for it.
        """
        done: T = await self._execute(work, self._conn)  # type: ignore[no-untyped-call]
        return done

    async def rollback(self) -> None:
        """Roll back, where there is a transaction."""
        if self.in_transaction:
            await super().rollback()


class Cursor(aiosqlite.Cursor):
    """Executes one statement and fetches all of its rows, in one step of the connection's thread.

    So no statement is left half read, which would keep its locks when the connection is closed
    (https://sqlite.org/c3ref/close.html, of sqlite3_close_v2).
    """

    def __init__(self, connection: Connection) -> None:
        self._conn = connection
        self._rows: list[Any] = []

    async def __aenter__(self) -> Self:
        return self

    async def execute(self, sql: str, parameters: Iterable[Any] | None = None) -> Self:
        """Execute a statement; its rows are here when this returns."""
        self._cursor, self._rows = await self._in_thread(self._all, sql, parameters or ())
        return self

    async def executemany(self, sql: str, parameters: Iterable[Iterable[Any]]) -> Self:
        """Execute a statement with each of the parameters."""
        self._cursor = await self._in_thread(self._conn._conn.executemany, sql, parameters)
        return self

    async def fetchall(self) -> list[Any]:
        """Return the rows, once."""
        rows, self._rows = self._rows, []
        return rows

    async def close(self) -> None:
        """Do nothing: what was executed is complete."""

    async def _in_thread(self, call: Callable[..., T], *given: Any) -> T:
        done: T = await self._conn._execute(call, *given)  # type: ignore[no-untyped-call]
        return done

    def _all(self, sql: str, parameters: Any) -> tuple[sqlite3.Cursor, list[Any]]:
        cursor = self._conn._conn.execute(sql, parameters)
        return cursor, cursor.fetchall()
