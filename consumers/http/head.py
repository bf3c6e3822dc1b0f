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


class Head(NamedTuple):
    """The head of a final answer: its status, its header lines, and where its body begins."""

    status: int
    lines: bytes
    #: None where the end of the headers is not here yet.
    body_at: int | None


def final_head(data: bytes) -> Head | None:
    """Find the head of the final answer, behind those of interim ones (RFC 9110, section 15.2).

    None where its status line is not here yet. Raises ValueError where what came is no HTTP.
    """
    at = 0
    while True:
        at = _BLANK_LINES.match(data, at).end()  # type: ignore[union-attr]  # it matches nothing, too
        line = _STATUS_LINE.match(data, at)
        if line is None:
            begun = data[at : at + len(_BEGINNING)].upper()
            if not _BEGINNING.startswith(begun) or data.find(b"\n", at) >= 0:
                raise ValueError("it is no HTTP: it begins with no status line")
            return None
        status = int(line[1])
        # The end of the status line is the beginning of the blank line where there are no headers.
        end = _END.search(data, line.end() - 1)
        if status >= 200 or status == SWITCHING:
            lines = data[line.end() : end.start() + 1 if end else len(data)]
            return Head(status, lines, end.end() if end else None)
        if end is None:
            return None
        at = end.end()


def retry_after(head: Head) -> str | None:
    """Return the value of Retry-After as it came; None where there is none."""
    found = _RETRY_AFTER.search(head.lines)
    return found[1].decode("latin-1") if found else None


def idle_s(head: Head | None) -> float:
    """Return how long to keep the connection idle, in seconds, by what the server says about it (Keep-Alive)."""
    found = _KEEP_ALIVE.search(head.lines) if head is not None else None
    return IDLE_S if found is None else min(float(found[1]) * IDLE_PART, LONGEST_IDLE_S)
