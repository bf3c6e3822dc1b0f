"""The resolver: which addresses a name stands for, remembered so that a silent name server holds nobody up.

A good answer is believed for a while. After that it is asked for anew, and served on while the name service fails or
does not answer (RFC 8767); that a name does not exist is believed at once. There is one lookup at a time for a name.
Names whose lookups took long wait among themselves: however many there are, the other names' threads are not theirs.
"""

import asyncio
import socket
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

from consumers.http.lookups import Address, Found, Lookups, look_up

#: How many names are remembered; the one that was asked for longest ago is forgotten first.
MOST_NAMES = 10_000
#: How long to wait for an answer where no earlier one can be served, in seconds: a resolver whose first server is
#: silent asks the second one after five.
ANSWER_S = 7.0
#: How long an earlier answer is served on while the name service does not give another, in seconds.
STALE_S = 3600.0
#: A lookup that takes longer is slow, in seconds.
SLOW_S = 2.0
#: Threads for lookups, and how many of them one zone may have; the second pair is for names that were slow last time.
MOST, MOST_A_ZONE = 112, 8
MOST_SLOW, MOST_SLOW_A_ZONE = 16, 2
NO_ANSWER = "the name service does not answer"
#: By which the name service says that there is no such name, or that it has no address.
_NO_SUCH_NAME = {socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME)}


class NameNotResolved(OSError):
    """The host's name is not known to the name service, or that does not answer."""


@dataclass(frozen=True, slots=True)
class Memory:
    """For how long answers are believed, in seconds, and how long to wait for another one."""

    #: A good answer.
    good_s: float = 30.0
    #: A failure.
    failed_s: float = 5.0
    #: How long to wait for a new answer before the earlier one is served on.
    patience_s: float = 0.3


@dataclass(slots=True)
class _Name:
    """What is known of one name."""

    addresses: list[Address] | None = None
    #: When the last good answer and the last failure came.
    good_at: float = float("-inf")
    failed_at: float = float("-inf")
    why: str = NO_ANSWER
    slow: bool = False
    #: The lookup that is under way, and since when.
    asked: asyncio.Future[None] | None = None
    asked_at: float = 0.0


class Resolver:
    """Resolves names by threads of its own. Close it at the end."""

    def __init__(
        self, memory: Memory | None = None, look_up: Callable[[str], list[Address]] = look_up
    ) -> None:
        self._memory = memory or Memory()
        self._loop = asyncio.get_running_loop()
        self._names: OrderedDict[str, _Name] = OrderedDict()
        self._lookups = Lookups(MOST, MOST_A_ZONE, look_up)
        self._slow_lookups = Lookups(MOST_SLOW, MOST_SLOW_A_ZONE, look_up)

    async def resolve(self, host: str, port: int) -> list[Address]:
        """Return the addresses of a host, which may be one itself. Raises NameNotResolved within `ANSWER_S`."""
        literal = literal_address(host, port)
        if literal is not None:
            return literal
        name = self._known(host)
        at = time.monotonic()
        if at - name.good_at < self._memory.good_s:
            return _with_port(name, port)
        if name.asked is None and at - name.failed_at >= self._memory.failed_s:
            self._ask(host, name)
        if name.asked is not None:
            await self._wait(name)
        if name.addresses is None or time.monotonic() - name.good_at >= STALE_S:
            raise NameNotResolved(f"{host} does not resolve: {name.why}")
        return _with_port(name, port)

    def close(self) -> None:
        """Ask nothing more, and let nobody wait."""
        self._lookups.close()
        self._slow_lookups.close()
        for name in self._names.values():
            if name.asked is not None and not name.asked.done():
                name.asked.set_result(None)

    def _known(self, host: str) -> _Name:
        name = self._names.get(host)
        if name is None:
            name = self._names[host] = _Name()
            if len(self._names) > MOST_NAMES:
                self._names.popitem(last=False)
        else:
            self._names.move_to_end(host)
        return name

    def _ask(self, host: str, name: _Name) -> None:
        asked = name.asked = self._loop.create_future()
        name.asked_at, name.why = time.monotonic(), NO_ANSWER

        def answered(found: Found, lasted_s: float) -> None:
            name.asked = None
            self._learn(name, found, lasted_s)
            if not asked.done():
                asked.set_result(None)

        (self._slow_lookups if name.slow else self._lookups).add(host, answered)

    def _learn(self, name: _Name, found: Found, lasted_s: float) -> None:
        name.slow = lasted_s > SLOW_S
        at = time.monotonic()
        if isinstance(found, list) and found:
            name.addresses, name.good_at, name.failed_at = found, at, float("-inf")
            return
        name.failed_at = at
        if isinstance(found, list):
            name.addresses, name.why = None, "it has no addresses"
            return
        name.why = str(getattr(found, "strerror", None) or found)
        if isinstance(found, socket.gaierror) and found.errno in _NO_SUCH_NAME:
            # Where nobody could tell, the earlier answer is the better guess.
            name.addresses = None

    async def _wait(self, name: _Name) -> None:
        assert name.asked is not None
        patience_s = 0.0 if name.slow else self._memory.patience_s
        wait_s = ANSWER_S if name.addresses is None else patience_s
        left_s = name.asked_at + wait_s - time.monotonic()
        if left_s > 0:
            await asyncio.wait({name.asked}, timeout=left_s)


def literal_address(host: str, port: int) -> list[Address] | None:
    """Return an address that a host is itself, without asking anybody; None where it is a name."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    except (OSError, ValueError):
        return None
    return cast("list[Address]", found)


def _with_port(name: _Name, port: int) -> list[Address]:
    assert name.addresses is not None
    found = [
        (family, kind, proto, canonical, (address[0], port, *address[2:]))
        for family, kind, proto, canonical, address in name.addresses
    ]
    return cast("list[Address]", found)
