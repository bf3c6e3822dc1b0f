"""Random bytes from the system, fetched many at a time: each message needs some, and a fetch is a system call."""

import os

#: Bytes of one fetch.
FETCHED = 4096

_fetched = b""
_given = 0


def random_bytes(size: int) -> bytes:
    """Return so many random bytes, at most 4096, fit for secrets; no byte is given twice."""
    global _fetched, _given
    end = _given + size
    if end > len(_fetched):
        _fetched = os.urandom(FETCHED)
        end = size
    _given = end
    return _fetched[end - size : end]


def _forget() -> None:
    global _fetched
    _fetched = b""


# A forked process would give out the bytes that its parent gives out too.
os.register_at_fork(after_in_child=_forget)
