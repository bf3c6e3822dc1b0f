"""The head of an answer, read leniently: where there is a status line, it settles the matter. Pure.

llhttp reads good answers. This decides where llhttp gives up, or has not come to the end of the headers in time, and
finds the few headers that matter. A status line is `HTTP/`, two digits with a dot between, blanks, a status of
three digits from 100 to 999, and then a blank or the end of the line; capital letters or small ones. It is RFC 9112,
section 4, but for the number of blanks and the case. Everything else is no HTTP.
"""

import re
from typing import NamedTuple

_STATUS_LINE = re.compile(rb"HTTP/[0-9]\.[0-9][ \t]+([1-9][0-9]{2})(?:[ \t][^\n]*)?\r?\n", re.IGNORECASE)
_BEGINNING = b"HTTP/"
_BLANK_LINES = re.compile(rb"[\r\n]*")
_END = re.compile(rb"\n\r?\n")
_RETRY_AFTER = re.compile(rb"^retry-after[ \t]*:[ \t]*([^\r\n]*)", re.IGNORECASE | re.MULTILINE)
_KEEP_ALIVE = re.compile(
    rb"^keep-alive[ \t]*:(?:[^\r\n]*[,; \t])?timeout[ \t]*=[ \t]*\"?([0-9]{1,9})",
    re.IGNORECASE | re.MULTILINE,
)
#: How long an idle connection is kept where its server does not say how long it does, in seconds: less than common
#: servers do (Node and uvicorn: 5).
IDLE_S = 4.0
#: Which part of the time that a server keeps an idle connection we keep it, and at most how long, in seconds.
IDLE_PART = 0.8
LONGEST_IDLE_S = 15.0
#: The one interim status that no other answer follows.
SWITCHING = 101
#: How many interim answers are waited past: far more than servers send, and each costs work.
MOST_INTERIM = 100


class Head(NamedTuple):
    """The head of a final answer: its status, its header lines, and where its body begins."""

    status: int
    lines: bytes
    #: None where the end of the headers is not here yet.
    body_at: int | None


class HeadReader:
    """Find the head of the final answer, behind those of interim ones (RFC 9110, section 15.2), as it comes.

    Reads each byte a bounded number of times, in however many pieces they come: an endpoint sends them as small as
    it likes, and all others wait meanwhile.
    """

    __slots__ = ("_at", "_interim", "_lines_at", "_lines_end", "_sought", "_status", "body_at", "status")

    def __init__(self) -> None:
        #: The final answer's; 0 until its status line is here.
        self.status = 0
        #: Where the final answer's body begins; None until the end of its head is here.
        self.body_at: int | None = None
        #: Where the head begins that is being read: all before it was passed.
        self._at = 0
        self._interim = 0
        #: The status of that head, 0 until its status line is here; where its header lines begin and end.
        self._status = self._lines_at = 0
        self._lines_end: int | None = None
        #: No head ends before here.
        self._sought = 0

    def read(self, data: bytes | bytearray) -> None:
        """Read on; `data` is all that came, and begins with what was given before.

        Raises ValueError where it is no HTTP, or where more than `MOST_INTERIM` interim answers came.
        """
        while self.body_at is None and (self._status or self._read_status_line(data)):
            end = _END.search(data, self._sought)
            if end is None:
                # The beginning of a blank line may be here: all but the last of its bytes.
                self._sought = max(self._sought, len(data) - 2)
                return
            if self.status:
                self._lines_end, self.body_at = end.start() + 1, end.end()
                return
            self._interim += 1
            if self._interim > MOST_INTERIM:
                raise ValueError(f"more than {MOST_INTERIM} interim answers came before it")
            self._at, self._status = end.end(), 0

    def head(self, data: bytes | bytearray) -> Head | None:
        """Return the final answer's head out of the same data; None where its status line is not here yet."""
        if not self.status:
            return None
        return Head(self.status, bytes(data[self._lines_at : self._lines_end]), self.body_at)

    def _read_status_line(self, data: bytes | bytearray) -> bool:
        self._at = _BLANK_LINES.match(data, self._at).end()  # type: ignore[union-attr]  # it matches nothing, too
        line = _STATUS_LINE.match(data, self._at)
        if line is None:
            begun = bytes(data[self._at : self._at + len(_BEGINNING)]).upper()
            if not _BEGINNING.startswith(begun) or data.find(b"\n", self._at) >= 0:
                raise ValueError("it is no HTTP: it begins with no status line")
            return False
        self._status = int(line[1])
        self._lines_at = line.end()
        # The end of the status line is the beginning of the blank line where there are no headers.
        self._sought = line.end() - 1
        if self._status >= 200 or self._status == SWITCHING:
            self.status = self._status
        return True


def final_head(data: bytes | bytearray) -> Head | None:
    """Find the head of the final answer in what is here of it.

    None where its status line is not here yet. Raises ValueError as `HeadReader.read` does.
    """
    reader = HeadReader()
    reader.read(data)
    return reader.head(data)


def retry_after(head: Head) -> str | None:
    """Return the value of Retry-After as it came; None where there is none."""
    found = _RETRY_AFTER.search(head.lines)
    return found[1].decode("latin-1") if found else None


def idle_s(head: Head | None) -> float:
    """Return how long to keep the connection idle, in seconds, by what the server says about it (Keep-Alive)."""
    found = _KEEP_ALIVE.search(head.lines) if head is not None else None
    return IDLE_S if found is None else min(float(found[1]) * IDLE_PART, LONGEST_IDLE_S)
