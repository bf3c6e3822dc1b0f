"""Random bytes from the system, fetched many at a time: each message needs some, and a fetch is a system call."""

import os

#: Bytes of one fetch.
FETCHED = 4096

_left = b""


def random_bytes(size: int) -> bytes:
    """Return so many random bytes, at most 4096, fit for secrets; no byte is given twice."""
    global _left
    if len(_left) < size:
        _left = os.urandom(FETCHED)
    taken, _left = _left[:size], _left[size:]
    return taken


def _forget() -> None:
    global _left
    _left = b""


# A forked process would give out the bytes that its parent gives out too.
os.register_at_fork(after_in_child=_forget)
