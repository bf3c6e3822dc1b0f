"""A name server of the test's own, and processes that ask it and no other."""

import asyncio
import socket
import struct
import subprocess
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import cast

import pytest
from yarl import URL

#: Where it listens: resolv.conf names no port, so it takes the one for names, on an address that is nobody's.
ADDRESS = "127.0.0.91"
TYPE_A, NO_ERROR = 1, 0x8180


class NameServer(asyncio.DatagramProtocol):
    """Says of every name that it is 127.0.0.1, but is silent where it is told to be."""

    def __init__(self) -> None:
        self.silent_about: Callable[[str], bool] = lambda name: "silent" in name
        self.asked: list[str] = []
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the event loop."""
        self._transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        """Answer one question (RFC 1035, section 4)."""
        labels, at = [], 12
        while data[at]:
            labels.append(data[at + 1 : at + 1 + data[at]].decode())
            at += 1 + data[at]
        name, end = ".".join(labels), at + 5
        self.asked.append(name)
        if self.silent_about(name) or self._transport is None:
            return
        (kind,) = struct.unpack("!H", data[at + 1 : at + 3])
        answers = struct.pack("!HHHIH4s", 0xC00C, 1, 1, 1, 4, socket.inet_aton("127.0.0.1"))
        header = struct.pack("!2sHHHHH", data[:2], NO_ERROR, 1, int(kind == TYPE_A), 0, 0)
        self._transport.sendto(header + data[12:end] + (answers if kind == TYPE_A else b""), addr)


@asynccontextmanager
async def name_server(folder: Path) -> AsyncIterator[tuple[NameServer, Sequence[str]]]:
    """Open a name server, and say how to run a process that asks it; skips the test where we have no right to."""
    try:
        before = _asking_it(folder)
        transport, server = await asyncio.get_running_loop().create_datagram_endpoint(
            NameServer, local_addr=(ADDRESS, 53)
        )
    except (OSError, subprocess.SubprocessError) as error:
        pytest.skip(f"a name server of one's own takes an administrator's rights: {error}")
    try:
        yield server, before
    finally:
        transport.close()


def _asking_it(folder: Path) -> Sequence[str]:
    conf = folder / "resolv.conf"
    conf.write_text(f"nameserver {ADDRESS}\n")
    within = 'mount --bind "$0" /etc/resolv.conf && exec "$@"'
    before = ("unshare", "--mount", "sh", "-c", within, str(conf))
    subprocess.run([*before, "true"], check=True, capture_output=True, timeout=10)
    return before


def by_name(url: str, name: str) -> str:
    """Return a URL with a name in place of its address."""
    return str(URL(url).with_host(name))
