"""Measures `postbote run` without servers, end to end: API, queue, bot, queue, webhook, in one process.

A run that loses, reorders or repeats a message, or gets one unsigned, fails. Prints a table and writes
`bench/results/embedded.json`. A receiver and a sender share the machine with what is measured.
"""

import asyncio
import json
import os
import socket
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

import aiohttp
from aiohttp import web
from rich.console import Console
from rich.table import Table

from broker.signature import verify

USERS, EACH = 50, 100
ADMIN = "bench"
RESULTS = Path(__file__).parent / "results"


class Sink:
    """A receiver that notes when each message came."""

    def __init__(self) -> None:
        self.secret = ""
        self.arrived: dict[str, list[tuple[int, float]]] = defaultdict(list)
        self.count = 0
        self.all_here = asyncio.Event()
        self.expected = 0

    async def receive(self, request: web.Request) -> web.Response:
        """Take one delivery."""
        body = await request.read()
        headers = {name.lower(): value for name, value in request.headers.items()}
        if verify([self.secret], headers, body, now=time.time()) is not None:
            raise SystemExit("a delivery was not signed")
        said = json.loads(body)
        self.arrived[said["senderId"]].append((said["messageCounter"], time.perf_counter()))
        self.count += 1
        if self.count >= self.expected:
            self.all_here.set()
        return web.Response()


async def measure() -> dict[str, float]:
    """Start everything, send, and wait for the last delivery."""
    sink = Sink()
    app = web.Application()
    app.router.add_post("/", sink.receive)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        settings = {
            "POSTBOTE_DATA_DIR": folder,
            "POSTBOTE_PORT": str(port),
            "POSTBOTE_ADMIN_TOKEN": ADMIN,
            "POSTBOTE_LOG_LEVEL": "warning",
        }
        began = time.perf_counter()
        child = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "consumers.cli.main", "run",
            env={**os.environ, **settings}, stdout=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
        try:
            async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as client:
                channel, token = await register(client, f"http://127.0.0.1:{runner.addresses[0][1]}/", sink)
                started = time.perf_counter() - began
                one_by_one = await latencies(client, channel, token, sink)
                rate = await throughput(client, channel, token, sink)
        finally:
            child.terminate()
            await child.wait()
            await runner.cleanup()
    return {"start to first channel, s": started, **one_by_one, **rate}


async def register(client: aiohttp.ClientSession, url: str, sink: Sink) -> tuple[str, str]:
    """Make a channel and a webhook, as soon as the API answers."""
    headers = {"Authorization": f"Bearer {ADMIN}"}
    body = {"name": "bench", "bot": {"type": "echo"}}
    async with asyncio.timeout(30):
        while True:
            try:
                async with client.post("/v1/channels", json=body, headers=headers) as answer:
                    channel = await answer.json()
                    break
            except aiohttp.ClientConnectorError:
                await asyncio.sleep(0.01)
    path = f"/v1/channels/{channel['id']}/webhooks"
    async with client.post(path, json={"url": url}, headers=headers) as answer:
        sink.secret = (await answer.json())["secret"]
    return channel["id"], channel["accessToken"]


async def say(client: aiohttp.ClientSession, channel: str, token: str, user: str, text: str) -> None:
    """Post one message."""
    async with client.post(
        f"/v1/channels/webhook/{channel}/messages",
        json={"message": {"textMessage": {"text": text}}, "user": {"id": user}},
        headers={"Authorization": f"Bearer {token}"},
    ) as answer:
        if answer.status != 200:
            raise SystemExit(f"a message was refused: {answer.status} {await answer.text()}")


async def latencies(client: aiohttp.ClientSession, channel: str, token: str, sink: Sink) -> dict[str, float]:
    """One message at a time, from the POST to the webhook."""
    taken = []
    for number in range(200):
        sink.expected = sink.count + 1
        sink.all_here.clear()
        began = time.perf_counter()
        await say(client, channel, token, "alone", str(number))
        await asyncio.wait_for(sink.all_here.wait(), 30)
        taken.append((sink.arrived["alone"][-1][1] - began) * 1000)
    cuts = statistics.quantiles(taken, n=100)
    return {"one at a time, p50 ms": cuts[49], "one at a time, p99 ms": cuts[98]}


async def throughput(client: aiohttp.ClientSession, channel: str, token: str, sink: Sink) -> dict[str, float]:
    """Many users at once, each waiting for its own message to be accepted."""
    sink.expected = sink.count + USERS * EACH
    sink.all_here.clear()

    async def talk(user: str) -> None:
        for number in range(EACH):
            await say(client, channel, token, user, str(number))

    began = time.perf_counter()
    await asyncio.gather(*(talk(f"user-{number}") for number in range(USERS)))
    await asyncio.wait_for(sink.all_here.wait(), 120)
    seconds = time.perf_counter() - began
    for number in range(USERS):
        if [counter for counter, _ in sink.arrived[f"user-{number}"]] != list(range(1, EACH + 1)):
            raise SystemExit(f"user-{number} got messages lost, repeated or out of order")
    return {"messages": USERS * EACH, "messages a second, end to end": USERS * EACH / seconds}


def main() -> None:
    """Measure, print and write down."""
    found = asyncio.run(measure())
    table = Table("Embedded, one process", "", title=None)
    for name, value in found.items():
        table.add_row(name, f"{value:,.1f}")
    Console().print(table)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "embedded.json").write_text(json.dumps(found, indent=2) + "\n")


main()
