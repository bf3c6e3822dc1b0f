"""Lookups: questions to the name service, each asked by a thread of its own.

The event loop resolves two names at a time, and a name whose server is silent takes one of the two for up to half a
minute: nothing can end a lookup that has begun. So threads are made for them here, which the end of the process does
not wait for. There are at most so many, and one owner's names get few of them, so that the others find one free.
"""

import asyncio
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import cast

#: As `socket.getaddrinfo` gives it.
Address = tuple[int, int, int, str, tuple[str, int] | tuple[str, int, int, int]]
#: The addresses of a name, with port 0, or why there are none.
Found = list[Address] | Exception


def look_up(host: str) -> list[Address]:
    """Ask the name service, which may take half a minute. Raises OSError, UnicodeError or ValueError."""
    found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG)
    return cast("list[Address]", found)


def zone_of(host: str) -> str:
    """Return the part of a name that one owner has registered, as far as its form tells.

    That is two labels, or three under such as `co.uk`.
    """
    labels = host.rstrip(".").lower().split(".")
    shared = len(labels) > 2 and len(labels[-1]) == 2 and len(labels[-2]) <= 3
    return ".".join(labels[-3 if shared else -2 :])


@dataclass(slots=True)
class _Lookup:
    host: str
    #: Called in the event loop with what was found, and for how many seconds it was looked for.
    tell: Callable[[Found, float], None]


@dataclass(slots=True)
class _Zone:
    running: int = 0
    #: True while it waits for its turn.
    queued: bool = False
    waiting: deque[_Lookup] = field(default_factory=deque)


class Lookups:
    """Runs at most `most` lookups at a time, at most `most_a_zone` of one zone; zones that wait take turns."""

    def __init__(
        self, most: int, most_a_zone: int, look_up: Callable[[str], list[Address]] = look_up
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._most = most
        self._most_a_zone = most_a_zone
        self._look_up = look_up
        self._running = 0
        self._zones: dict[str, _Zone] = {}
        #: Zones that have lookups waiting and may begin one, in the order of their turns.
        self._turns: deque[str] = deque()

    def add(self, host: str, tell: Callable[[Found, float], None]) -> None:
        """Look a name up when its turn comes, and tell what was found."""
        zone_name = zone_of(host)
        zone = self._zones.setdefault(zone_name, _Zone())
        zone.waiting.append(_Lookup(host, tell))
        self._queue(zone_name, zone)
        self._begin_some()

    def close(self) -> None:
        """Begin no more; those that run are left to end by themselves, and tell nobody."""
        self._most = 0
        self._zones.clear()
        self._turns.clear()

    def _queue(self, zone_name: str, zone: _Zone) -> None:
        if zone.waiting and not zone.queued and zone.running < self._most_a_zone:
            zone.queued = True
            self._turns.append(zone_name)

    def _begin_some(self) -> None:
        while self._running < self._most and self._turns:
            zone_name = self._turns.popleft()
            zone = self._zones[zone_name]
            zone.queued = False
            lookup = zone.waiting.popleft()
            zone.running += 1
            self._running += 1
            self._queue(zone_name, zone)
            thread = threading.Thread(
                target=self._work, args=(zone_name, lookup), name=f"lookup-{lookup.host}", daemon=True
            )
            try:
                thread.start()
            except RuntimeError as error:
                # The system gives no more threads.
                self._loop.call_soon(self._ended, zone_name, lookup, error, 0.0)

    def _work(self, zone_name: str, lookup: _Lookup) -> None:
        began = time.monotonic()
        found: Found
        try:
            found = self._look_up(lookup.host)
        except Exception as error:
            found = error
        lasted = time.monotonic() - began
        # The event loop may have been closed long ago.
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._ended, zone_name, lookup, found, lasted)

    def _ended(self, zone_name: str, lookup: _Lookup, found: Found, lasted: float) -> None:
        zone = self._zones.get(zone_name)
        if zone is None:
            return
        self._running -= 1
        zone.running -= 1
        self._queue(zone_name, zone)
        if not zone.running and not zone.waiting:
            del self._zones[zone_name]
        lookup.tell(found, lasted)
        self._begin_some()
