"""The event loop of all processes: uvloop's, which resolves names as we do.

By itself it resolves two names at a time, in threads that connecting to plain addresses needs too: a name server that
is silent would hold up everything in the process.
"""

import asyncio
import socket
from collections.abc import Callable
from typing import Any

import aiohappyeyeballs
import uvloop

from consumers.http.resolver import Memory, Resolver, literal_address

#: Our own servers by name: asked for at each connection, since their addresses change when they fail over. The
#: answer before is used where the name service gives none.
OWN_SERVERS = Memory(good_s=0.0, failed_s=0.0, patience_s=1.0)
#: After so many seconds without a connection the next address is tried beside it (RFC 8305, section 5).
NEXT_ADDRESS_S = 0.25


class Loop(uvloop.Loop):
    """Connects to RabbitMQ and PostgreSQL by name without the loop's own threads."""

    _resolver: Resolver | None = None

    async def create_connection(
        self,
        protocol_factory: Callable[[], asyncio.BaseProtocol],
        host: Any = None,
        port: Any = None,
        **how: Any,
    ) -> Any:
        """Connect as asyncio has it. Raises NameNotResolved, which is an OSError."""
        if not host or not port or literal_address(host, port):
            return await super().create_connection(protocol_factory, host, port, **how)
        if self._resolver is None:
            self._resolver = Resolver(OWN_SERVERS)
        addresses = await self._resolver.resolve(host, port)
        connected = await aiohappyeyeballs.start_connection(
            addresses, happy_eyeballs_delay=NEXT_ADDRESS_S, interleave=1
        )
        if how.get("ssl"):
            how.setdefault("server_hostname", host)
        try:
            return await super().create_connection(protocol_factory, sock=connected, **how)
        except BaseException:
            connected.close()
            raise

    async def getaddrinfo(self, host: Any, port: Any, **how: Any) -> Any:
        """Resolve as asyncio has it; a plain address without a thread, also where no kind of socket is named."""
        if not how.get("type") and literal_address(host, 0):
            how["type"] = socket.SOCK_STREAM
        return await super().getaddrinfo(host, port, **how)
