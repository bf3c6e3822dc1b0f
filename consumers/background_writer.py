"""Write to standard output or standard error from a thread of its own.

No write blocks or raises, whatever became of the reader: a pipe without one, a full disk, a terminal that Ctrl-S
stopped. Lines that find no room or cannot be written are counted, and the count is written once writing works again.
"""

import os
import select
import threading
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import TextIO

#: Bytes that may wait for the thread; lines that come then are lost.
MOST_WAITING = 1024 * 1024
#: How often a stream that could not be written is tried again where nothing new comes, in seconds.
AGAIN_S = 2.0
#: How long the end of the process waits for the last lines, in seconds.
LAST_LINES_S = 0.2


class BackgroundWriter:
    """A text stream in place of `stream`; `notice` puts in words how many lines were lost, and why."""

    def __init__(
        self, stream: TextIO, notice: Callable[[int, str], str], *, errors: str = "backslashreplace"
    ) -> None:
        self._fd = stream.fileno()
        self._notice = notice
        self._terminal = stream.isatty()
        self.encoding = stream.encoding or "utf-8"
        self.errors = errors
        self._waiting: SimpleQueue[bytes | None] = SimpleQueue()
        # The garbage collector may write (to sys.stderr, of a finalizer that failed) in the middle of a write.
        self._lock = threading.RLock()
        self._held = 0
        self._lost = 0
        #: Why the last line that was lost could not be written.
        self.why = ""
        self._in_a_line = False
        self._thread = threading.Thread(target=self._run, name=f"writer-{self._fd}", daemon=True)
        self._thread.start()

    @property
    def lost(self) -> int:
        """How many lines could not be written and are not yet told of."""
        return self._lost

    def room(self) -> bool:
        """Tell whether the next line will wait for its turn, and is not lost for want of room."""
        return self._held < MOST_WAITING

    def write(self, text: str) -> int:
        """Hand a text to the thread; returns its length, as streams do."""
        piece = text.encode(self.encoding, self.errors)
        with self._lock:
            if self._held >= MOST_WAITING:
                self._lost += 1
                self.why = "its reader does not keep up"
                return len(text)
            self._held += len(piece)
        self._waiting.put(piece)
        return len(text)

    def flush(self) -> None:
        """Return at once: the thread writes each piece as it comes."""

    def isatty(self) -> bool:
        """Tell whether a person looks on."""
        return self._terminal

    def writable(self) -> bool:
        """Say yes, as a stream to write to does."""
        return True

    def fileno(self) -> int:
        """Return the number of the file that is written."""
        return self._fd

    def close(self, timeout_s: float = LAST_LINES_S) -> None:
        """Write what waits, for at most `timeout_s` seconds."""
        self._waiting.put(None)
        self._thread.join(timeout_s)

    def _run(self) -> None:
        while True:
            try:
                piece = self._waiting.get(timeout=AGAIN_S if self._lost else None)
            except Empty:
                piece = b""
            if piece is None:
                return
            self._put_out(piece)
            with self._lock:
                self._held -= len(piece)

    def _put_out(self, piece: bytes) -> None:
        lost = self._lost
        try:
            if lost:
                self._write_all(self._notice(lost, self.why).encode(self.encoding, self.errors))
                with self._lock:
                    self._lost -= lost
            if piece:
                self._write_all(piece)
        except OSError as error:
            with self._lock:
                self._lost += 1 if piece else 0
                self.why = error.strerror or type(error).__name__

    def _write_all(self, piece: bytes) -> None:
        # A line of which a full disk took a part ends before the next one begins.
        left = memoryview(b"\n" + piece if self._in_a_line else piece)
        while left:
            try:
                written = os.write(self._fd, left)
            except BlockingIOError:
                # Another program made this file non-blocking.
                poll = select.poll()
                poll.register(self._fd, select.POLLOUT)
                poll.poll()
                continue
            left = left[written:]
            self._in_a_line = bool(left)
