"""A receiver that takes its time to answer, in a process of its own.

`python -m bench.slow PORT SECONDS FILE`; writes FILE in the form of nginx's log, a piece every 50 ms.
"""

import asyncio
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import cast

import uvloop

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
WRITE_S = 0.05
NAMES = (b"webhook-id", b"webhook-timestamp", b"webhook-signature", b"content-length")


class Slow(asyncio.Protocol):
    """One connection: answers each request after a while."""

    def __init__(self, wait_s: float, lines: list[str]) -> None:
        self._wait_s = wait_s
        self._lines = lines
        self._received = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        # uvloop's transports are of no class of asyncio's.
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """Take a request once it is whole."""
        self._received += data
        head = self._received.find(b"\r\n\r\n")
        if head < 0:
            return
        found = {}
        for line in self._received[:head].split(b"\r\n")[1:]:
            name, _, value = line.partition(b": ")
            found[name.lower()] = value.decode()
        if len(self._received) < head + 4 + int(found.get(b"content-length", 0)):
            return
        self._received = b""
        asyncio.get_running_loop().call_later(self._wait_s, self._answer, found)

    def _answer(self, found: dict[bytes, str]) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._lines.append(" ".join([f"{time.time():.3f}", *(found.get(name, "-") for name in NAMES)]))
            self._transport.write(OK)


async def main(port: int, wait_s: float, file: Path) -> None:
    """Serve until told to stop."""
    lines: list[str] = []
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    server = await loop.create_server(lambda: Slow(wait_s, lines), "127.0.0.1", port, backlog=1024)
    with file.open("w") as log:
        async with server:
            while not stop.is_set():
                with suppress(TimeoutError):
                    await asyncio.wait_for(stop.wait(), WRITE_S)
                log.write("".join(f"{line}\n" for line in lines))
                log.flush()
                lines.clear()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1]), float(sys.argv[2]), Path(sys.argv[3])))
