"""How soon it is there: from the command to the first message accepted, and what importing takes of that."""

import asyncio
import statistics
import sys
import tempfile
import time
from pathlib import Path

import aiohttp
from servers.process import free_port

from bench.end_to_end import embedded_settings
from bench.processes import run, start
from broker.registry.channels import Channels
from broker.registry.database import Database

#: What `postbote run` imports, and how, until it accepts its first message. What it imports beside that (the workers,
#: and what tells a person of them) does not count; Alembic is imported only where there is something to migrate.
IMPORTING = (
    "import gc, consumers.cli.main as main; gc.set_threshold(*main.GARBAGE); main.processes(); "
    "import uvloop, resource, consumers.composition.whole, "
    "broker.registry.sqlite, sqlalchemy.dialects.sqlite, broker.embedded.broker"
)
#: The libraries alone among that: what no code of ours can do without.
LIBRARIES = (
    "import gc, sys; gc.set_threshold(10_000, 5, 400); sys.modules['rich'] = None; "
    "import typer, structlog, uvloop, resource, pydantic_settings, aiohttp.web, aiohttp_pydantic, "
    "sqlalchemy.ext.asyncio, sqlalchemy.dialects.sqlite, aiosqlite"
)
BODY = {"message": {"textMessage": {"text": "hello"}}, "user": {"id": "you"}}
#: After this long at rest memory is looked at, in seconds.
REST_S = 5.0


async def measure_start(times: int) -> dict[str, float]:
    """Start `postbote run` so often on a folder that has a channel; medians in seconds, memory at rest in MB."""
    taken, importing, libraries = [], [], []
    memory = 0.0
    with tempfile.TemporaryDirectory(prefix="postbote-bench-") as folder:
        port = free_port()
        settings = embedded_settings(Path(folder), port)
        await run("migrate", settings)
        database = Database(f"sqlite:///{folder}/registry.db")
        channel, token = await Channels(database).create("bench", {"type": "echo"})
        await database.close()
        url = f"http://127.0.0.1:{port}/v1/channels/webhook/{channel.id}/messages"
        for number in range(times):
            began = time.perf_counter()
            child = await start("run", settings)
            try:
                await _accepted(url, token)
                taken.append(time.perf_counter() - began)
                if number == 0:
                    await asyncio.sleep(REST_S)
                    memory = child.memory_mb()
            finally:
                await child.stop()
            empty = await _python("pass")
            importing.append(await _python(IMPORTING) - empty)
            libraries.append(await _python(LIBRARIES) - empty)
    return {
        "start": statistics.median(taken),
        "import": statistics.median(importing),
        "libraries": statistics.median(libraries),
        "memory_mb": memory,
    }


async def _python(program: str) -> float:
    began = time.perf_counter()
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", program)
    if await process.wait():
        raise RuntimeError("importing failed")
    return time.perf_counter() - began


async def _accepted(url: str, token: str) -> None:
    async with (
        asyncio.timeout(30),
        aiohttp.ClientSession(headers={"Authorization": f"Bearer {token}"}) as client,
    ):
        while True:
            try:
                async with client.post(url, json=BODY) as answer:
                    if answer.status == 200:
                        return
            except aiohttp.ClientConnectorError:
                pass
            await asyncio.sleep(0.005)
