"""A crowd of connections without a token costs little memory, no descriptor that is needed, and nobody a message."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from deployment import Deployment
from processes import ARRIVAL_S, Process, Receiver, until

CROWD = 300
#: What the crowd may cost, in MB.
MOST_MB = 60.0
#: Descriptors of the process in all; the crowd is larger.
FILES = 128
HEAD = b"GET /healthz HTTP/1.1\r\nHost: x\r\n"
LINES = b"".join(b"X-%d: %s\r\n" % (number, b"y" * 8000) for number in range(125))


async def open_one(base: str, sent: bytes) -> asyncio.StreamWriter | None:
    """Connect and send; None where that cannot be."""
    where = urlsplit(base)
    try:
        _, writer = await asyncio.open_connection(where.hostname, where.port)
        writer.write(sent)
        await writer.drain()
        return writer
    except OSError:
        return None


@asynccontextmanager
async def crowd(base: str, number: int, sent: bytes) -> AsyncIterator[None]:
    """Hold connections open, on each of which a part of a request was sent; several at once."""
    writers: list[asyncio.StreamWriter | None] = []
    for _ in range(number // 30):
        writers += await asyncio.gather(*(open_one(base, sent) for _ in range(30)))
    try:
        yield
    finally:
        for writer in writers:
            if writer is not None:
                writer.close()
                with suppress(OSError):
                    await writer.wait_closed()


def memory_mb(process: Process) -> float:
    """Return what a process holds in memory."""
    pages = int(Path(f"/proc/{process.pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


@pytest.mark.parametrize("head", [HEAD + LINES[:31_000], HEAD + LINES], ids=["31 kB", "1 MB"])
async def test_unfinished_requests_hold_little_memory_and_up_nobody(
    embedded: Deployment, receiver: Receiver, head: bytes
) -> None:
    (process,) = await embedded.start("run")
    channel, token = await embedded.api.channel()
    await embedded.api.webhook(channel, receiver, "/hook")
    assert await embedded.api.say(channel, token, "ada", "before") == 200
    await until(lambda: receiver.distinct("/hook") == 1, ARRIVAL_S, "the first delivery")
    before = memory_mb(process)
    async with crowd(embedded.api.base, CROWD, head):
        assert await embedded.api.say(channel, token, "ada", "meanwhile") == 200
        await until(lambda: receiver.distinct("/hook") == 2, ARRIVAL_S, "the second delivery")
        assert memory_mb(process) - before < MOST_MB


async def test_more_connections_than_descriptors_from_the_start_on_end_nothing(
    embedded: Deployment, receiver: Receiver
) -> None:
    few = ("sh", "-c", f'ulimit -n {FILES}; exec "$@"', "sh")

    async def insist() -> list[asyncio.StreamWriter]:
        held: list[asyncio.StreamWriter] = []
        try:
            while True:
                if (writer := await open_one(embedded.api.base, HEAD)) is not None:
                    held.append(writer)
                await asyncio.sleep(0.001 if held else 0.01)
        finally:
            for writer in held:
                writer.transport.abort()

    insisting = asyncio.create_task(insist())
    (process,) = await embedded.start("run", under=few)
    channel, token = await embedded.api.channel()
    await embedded.api.webhook(channel, receiver, "/hook")
    for number in range(20):
        assert await embedded.api.say(channel, token, "ada", str(number)) == 200
    await until(lambda: receiver.distinct("/hook") == 20, ARRIVAL_S, "all deliveries")
    insisting.cancel()
    await asyncio.gather(insisting, return_exceptions=True)
    assert await process.stop() == 0, process.output()
