"""Opening connections: the name is resolved, its addresses are judged, one of them is connected to.

Judged is what is connected to, after the name is resolved: a name that points inside is refused, also one that
pointed elsewhere when its webhook was registered.
"""

import asyncio
import socket
import ssl
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeVar, cast

import aiohappyeyeballs

from broker.addresses import refusal
from broker.settings import Network

Protocol = TypeVar("Protocol", bound=asyncio.BaseProtocol)
#: As `socket.getaddrinfo` gives it.
Address = tuple[int, int, int, str, tuple[str, int] | tuple[str, int, int, int]]

#: How long what a name stands for is believed, in seconds; and for how many names it is remembered.
RESOLVED_S = 30.0
MOST_NAMES = 10_000
#: After so many seconds without a connection the next address is tried beside it (RFC 8305, section 5).
NEXT_ADDRESS_S = 0.25


class AddressRefused(OSError):
    """The webhook's host has an address that deliveries must not reach."""


class NameNotResolved(OSError):
    """The webhook's host is not known to the name service, or that does not answer."""


class Origin(NamedTuple):
    """What a connection is made to (RFC 9110, section 4.3.1)."""

    host: str
    port: int
    tls: bool


class Opener:
    """Opens connections to origins whose addresses are allowed. Close it at the end."""

    def __init__(self, allowed: Sequence[Network]) -> None:
        self._allowed = allowed
        self._resolved: dict[tuple[str, int], tuple[float, list[Address]]] = {}
        self._resolving: dict[tuple[str, int], asyncio.Task[list[Address]]] = {}
        self._tls: ssl.SSLContext | None = None

    async def open(self, origin: Origin, protocol: Callable[[], Protocol]) -> Protocol:
        """Open a connection. Raises NameNotResolved, AddressRefused, ssl.SSLError or OSError."""
        addresses = self._judged(await self._addresses(origin.host, origin.port))
        connected = await aiohappyeyeballs.start_connection(
            addresses, happy_eyeballs_delay=NEXT_ADDRESS_S, interleave=1
        )
        loop = asyncio.get_running_loop()
        try:
            if origin.tls:
                _, made = await loop.create_connection(
                    protocol, sock=connected, ssl=self._context(), server_hostname=origin.host.rstrip(".")
                )
            else:
                _, made = await loop.create_connection(protocol, sock=connected)
        except BaseException:
            connected.close()
            raise
        return made

    async def close(self) -> None:
        """End the questions to the name service."""
        tasks = list(self._resolving.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _judged(self, addresses: Sequence[Address]) -> list[Address]:
        reasons = [refusal(address[4][0], self._allowed) for address in addresses]
        allowed = [address for address, why in zip(addresses, reasons, strict=True) if why is None]
        if not allowed:
            raise AddressRefused(
                f"{addresses[0][4][0]} is {reasons[0]}; deliveries go to public addresses only. To allow it, add its "
                "network to POSTBOTE_WEBHOOK_ALLOW_NETWORKS"
            )
        return allowed

    async def _addresses(self, host: str, port: int) -> list[Address]:
        known = self._resolved.get((host, port))
        if known is not None and time.monotonic() - known[0] < RESOLVED_S:
            return known[1]
        task = self._resolving.get((host, port))
        if task is None:
            # One question for all who ask at the same moment, which those who give up leave to the others.
            task = self._resolving[host, port] = asyncio.create_task(self._resolve(host, port))
            task.add_done_callback(lambda done: done.cancelled() or done.exception())
        return await asyncio.shield(task)

    async def _resolve(self, host: str, port: int) -> list[Address]:
        try:
            found = await asyncio.get_running_loop().getaddrinfo(
                host, port, type=socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG
            )
            if not found:
                raise NameNotResolved(f"{host} has no addresses")
            while len(self._resolved) >= MOST_NAMES:
                del self._resolved[next(iter(self._resolved))]
            addresses = cast("list[Address]", found)
            self._resolved[host, port] = (time.monotonic(), addresses)
            return addresses
        except (socket.gaierror, UnicodeError) as error:
            raise NameNotResolved(f"{host} cannot be resolved: {error}") from error
        finally:
            del self._resolving[host, port]

    def _context(self) -> ssl.SSLContext:
        if self._tls is None:
            self._tls = ssl.create_default_context()
            self._tls.set_alpn_protocols(["http/1.1"])
        return self._tls
