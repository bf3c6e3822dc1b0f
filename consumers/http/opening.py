"""Opening connections: a name's addresses are judged, and one of them is connected to.

Judged is what is connected to, after the name is resolved: a name that points inside is refused, also one that
pointed elsewhere when its webhook was registered.
"""

import asyncio
import ssl
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeVar

import aiohappyeyeballs

from broker.addresses import refusal
from broker.settings import Network
from consumers.http.lookups import Address
from consumers.http.resolver import NameNotResolved, Resolver

__all__ = ["AddressRefused", "NameNotResolved", "Opener", "Origin"]

Protocol = TypeVar("Protocol", bound=asyncio.BaseProtocol)

#: After so many seconds without a connection the next address is tried beside it (RFC 8305, section 5).
NEXT_ADDRESS_S = 0.25


class AddressRefused(OSError):
    """The webhook's host has an address that deliveries must not reach."""


class Origin(NamedTuple):
    """What a connection is made to (RFC 9110, section 4.3.1)."""

    host: str
    port: int
    tls: bool


class Opener:
    """Opens connections to origins whose addresses are allowed. Close it at the end."""

    def __init__(self, allowed: Sequence[Network]) -> None:
        self._allowed = allowed
        self._resolver = Resolver()
        self._tls: ssl.SSLContext | None = None

    async def resolve(self, origin: Origin) -> Sequence[Address]:
        """Return the addresses of an origin, whether allowed or not. Raises NameNotResolved."""
        return await self._resolver.resolve(origin.host, origin.port)

    async def open(
        self, origin: Origin, resolved: Sequence[Address], protocol: Callable[[], Protocol]
    ) -> Protocol:
        """Open a connection to one of the addresses of an origin. Raises AddressRefused, ssl.SSLError or OSError."""
        addresses = self._judged(resolved)
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

    def close(self) -> None:
        """End the questions to the name service."""
        self._resolver.close()

    def _judged(self, addresses: Sequence[Address]) -> list[Address]:
        reasons = [refusal(address[4][0], self._allowed) for address in addresses]
        allowed = [address for address, why in zip(addresses, reasons, strict=True) if why is None]
        if not allowed:
            raise AddressRefused(
                f"{addresses[0][4][0]} is {reasons[0]}; deliveries go to public addresses only. To allow it, add its "
                "network to POSTBOTE_WEBHOOK_ALLOW_NETWORKS"
            )
        return allowed

    def _context(self) -> ssl.SSLContext:
        if self._tls is None:
            self._tls = ssl.create_default_context()
            self._tls.set_alpn_protocols(["http/1.1"])
        return self._tls
