"""The spool: bodies of messages that came and have no room in memory yet, on disk.

They have to come off the connection all the same: it serves all partitions, and RabbitMQ ends one that is not read
for half a minute. What is here is unacknowledged, and comes again if this process ends; so the file has no name,
nothing is synced, and nothing of it outlives the process.
"""

import asyncio
import os
import tempfile
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeVar

import structlog

from broker.errors import BrokerUnavailable

if TYPE_CHECKING:
    import sqlite3

log = structlog.get_logger()

T = TypeVar("T")

#: Bytes that may wait to be written, above which the connection is not read: the disk is slower than it.
MOST_UNWRITTEN = 8 * 2**20
#: Seconds between two tries where the disk does not take what is to be written.
RETRY_S = 1.0
#: An empty file that was used for more than this, in bytes, is given back to the disk.
KEPT_EMPTY = 64 * 2**20

_SETTINGS = (
    "PRAGMA page_size=16384",
    "PRAGMA journal_mode=MEMORY",
    "PRAGMA synchronous=OFF",
    "PRAGMA locking_mode=EXCLUSIVE",
    "CREATE TABLE body (number INTEGER PRIMARY KEY, bytes BLOB NOT NULL)",
)


class Source(Protocol):
    """Where the bodies come from."""

    def pause(self) -> None:
        """Read no more."""
        ...

    def resume(self) -> None:
        """Read on."""
        ...


class Spooled:
    """A body that is on disk, or on its way there."""

    __slots__ = ("body", "row", "wanted")

    def __init__(self, body: bytes) -> None:
        #: In memory until it is written.
        self.body: bytes | None = body
        self.row: int | None = None
        #: False once nobody will ask for it any more.
        self.wanted = True


class Spool:
    """Keeps bodies on disk, in one file and by one thread of its own, both made when the first comes."""

    def __init__(self, folder: Path, source: Callable[[], Source]) -> None:
        self._folder = folder
        self._source = source
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="spool")
        self._file: sqlite3.Connection | None = None
        self._written = 0
        self._rows = 0
        self._unwritten: deque[Spooled] = deque()
        self._unwritten_bytes = 0
        self._paused: Source | None = None
        self._writing: asyncio.Task[None] | None = None
        self._closed = False

    def put(self, body: bytes) -> Spooled:
        """Have a body written; it is in memory until then, and what comes after it is left unread where many wait."""
        spooled = Spooled(body)
        self._unwritten.append(spooled)
        self._unwritten_bytes += len(body)
        if self._unwritten_bytes > MOST_UNWRITTEN and self._paused is None:
            self._paused = self._source()
            self._paused.pause()
        if self._writing is None or self._writing.done():
            self._writing = asyncio.create_task(self._write_all(), name="spool")
        return spooled

    async def take(self, spooled: Spooled) -> bytes:
        """Return a body and forget it; one that is cancelled forgets nothing.

        Raises BrokerUnavailable where it cannot be read.
        """
        if (body := spooled.body) is not None:
            self.drop(spooled)
            return body
        assert spooled.row is not None
        row = spooled.row
        try:
            body = await self._in_thread(lambda: self._read(row))
        except OSError as error:
            raise BrokerUnavailable(
                f"a message's body cannot be read from {self._folder}: {error}"
            ) from error
        self.drop(spooled)
        return body

    def drop(self, spooled: Spooled) -> None:
        """Forget a body: nobody will ask for it."""
        if not spooled.wanted:
            return
        spooled.wanted = False
        if spooled.body is not None:
            # Where it is being written at this moment, its row is deleted after that.
            self._unwritten_bytes -= len(spooled.body)
            spooled.body = None
            self._read_on()
        elif spooled.row is not None:
            self._forget(spooled.row)

    async def close(self) -> None:
        """Let go of the file; what is on it comes again from the broker."""
        self._closed = True
        if self._writing is not None:
            self._writing.cancel()
            await asyncio.wait({self._writing})
            await self._in_thread(self._close)
        self._thread.shutdown()

    def _forget(self, row: int) -> None:
        if not self._closed:
            self._thread.submit(self._delete, row)

    def _read_on(self) -> None:
        if self._paused is not None and self._unwritten_bytes <= MOST_UNWRITTEN // 2:
            self._paused.resume()
            self._paused = None

    async def _write_all(self) -> None:
        told = False
        while self._unwritten:
            spooled = self._unwritten[0]
            body = spooled.body
            if body is None:
                self._unwritten.popleft()
                continue
            try:
                row = await self._in_thread(lambda body=body: self._insert(body))  # type: ignore[misc]
            except OSError as error:
                # Still bounded: the connection is not read, until there is room in memory or on the disk.
                if not told:
                    log.warning("spool.unwritable", folder=str(self._folder), reason=str(error))
                told = True
                await asyncio.sleep(RETRY_S)
                continue
            self._unwritten.popleft()
            if spooled.wanted:
                spooled.row, spooled.body = row, None
                self._unwritten_bytes -= len(body)
                self._read_on()
            else:
                self._forget(row)

    async def _in_thread(self, call: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, lambda: _with_file_errors(call))

    # What follows runs in the thread.

    def _insert(self, body: bytes) -> int:
        if self._file is None:
            self._file = _open(self._folder)
        row = self._file.execute("INSERT INTO body (bytes) VALUES (?)", (body,)).lastrowid
        assert row is not None
        self._rows += 1
        self._written += len(body)
        return row

    def _read(self, row: int) -> bytes:
        assert self._file is not None
        (body,) = self._file.execute("SELECT bytes FROM body WHERE number = ?", (row,)).fetchone()
        return bytes(body)

    def _delete(self, row: int) -> None:
        assert self._file is not None
        self._file.execute("DELETE FROM body WHERE number = ?", (row,))
        self._rows -= 1
        if not self._rows and self._written > KEPT_EMPTY:
            self._close()

    def _close(self) -> None:
        if self._file is not None:
            self._file.close()
        self._file = None
        self._written = self._rows = 0


def _with_file_errors(call: Callable[[], T]) -> T:
    # Imported here: SQLite is needed where there is more than there is room for, which is seldom.
    import sqlite3

    try:
        return call()
    except sqlite3.Error as error:
        raise OSError(str(error)) from error


def _open(folder: Path) -> "sqlite3.Connection":
    import sqlite3

    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix="postbote-spool-", dir=folder)
    os.close(handle)
    try:
        file = sqlite3.connect(name, isolation_level=None, check_same_thread=False)
        try:
            for setting in _SETTINGS:
                file.execute(setting)
        except BaseException:
            file.close()
            raise
    finally:
        Path(name).unlink()
    return file
