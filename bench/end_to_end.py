"""The whole way, API to webhook: what one message takes, and how many a second are held."""

import asyncio
import os
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from servers.process import free_port
from sqlalchemy import select

from bench.accepting import answering
from bench.deployment import ADMIN, deployed
from bench.load import CONNECTIONS, send_at
from bench.processes import Child, Meter, start
from bench.receiver import Nginx
from bench.responses import Expected
from bench.servers import Servers
from broker.ids import delivery_id, response_id
from broker.models.records import BotResponse
from broker.registry.channels import Channels
from broker.registry.database import Database
from broker.registry.records import Channel, Webhook
from broker.registry.tables import turns
from broker.registry.webhooks import Webhooks

#: The rate counts where 99 of 100 messages are at their webhook within this time, in seconds.
HELD_S = 0.25
SETTLE_S = 60.0
PROBE_S = 8.0
FIRST_RATE, LEAST_RATE, STEP = 500.0, 10.0, 1.25


@dataclass(frozen=True)
class Held:
    """A rate, and how it went: latencies in milliseconds, CPU in microseconds a message by process."""

    rate: float
    p50_ms: float
    p99_ms: float
    cpu_us: Mapping[str, float] = field(default_factory=dict)
    memory_mb: Mapping[str, float] = field(default_factory=dict)

    @property
    def good(self) -> bool:
        """True where the latency is as it has to be."""
        return self.p99_ms < HELD_S * 1000


@dataclass
class Way:
    """What takes messages at a URL and brings each to a receiver: Postbote, or a peer."""

    url: str
    token: str
    receiver: Nginx
    children: list[Child]
    meter: Meter

    def arrives_as(self, message_id: str) -> str:
        """Name what the receiver gets of a message, by the id that the sender was told."""
        return message_id


@dataclass
class Running(Way):
    """A deployment that takes messages, with one webhook at nginx."""

    channel: Channel
    webhook: Webhook
    database: Database

    def arrives_as(self, message_id: str) -> str:
        """Name the delivery of the bot's only response."""
        return delivery_id(response_id(message_id, 1), self.webhook.id)


@asynccontextmanager
async def on_servers(servers: Servers) -> AsyncIterator[Running]:
    """Run one of each process on RabbitMQ and PostgreSQL."""
    async with AsyncExitStack() as stack:
        receiver = stack.enter_context(servers.nginx())
        deployment = await stack.enter_async_context(deployed(servers))
        (webhook,) = await deployment.webhooks(receiver.url)
        port = free_port()
        api = await deployment.start("api", {"POSTBOTE_PORT": str(port)})
        await deployment.start("bot")
        await deployment.start("deliver")
        base = f"http://127.0.0.1:{port}"
        await answering(f"{base}/readyz", api)
        meter = deployment.meter({"receiver": [receiver.processes()[0].pid], "sender": [os.getpid()]})
        yield Running(
            f"{base}/v1/channels/webhook/{deployment.channel.id}/messages",
            deployment.token,
            receiver,
            deployment.children,
            meter,
            deployment.channel,
            webhook,
            deployment.database,
        )


@asynccontextmanager
async def embedded(servers: Servers) -> AsyncIterator[Running]:
    """Run everything in one process, without servers."""
    async with AsyncExitStack() as stack:
        receiver = stack.enter_context(servers.nginx())
        folder = stack.enter_context(tempfile.TemporaryDirectory(dir=servers.folder))
        port = free_port()
        child = await start("run", embedded_settings(Path(folder), port))
        stack.push_async_callback(child.stop)
        base = f"http://127.0.0.1:{port}"
        await answering(f"{base}/readyz", child)
        database = Database(f"sqlite:///{folder}/registry.db")
        stack.push_async_callback(database.close)
        channel, token = await Channels(database).create("bench", {"type": "echo"})
        webhook = await Webhooks(database).create(channel.id, url=receiver.url)
        assert webhook is not None
        meter = Meter(
            {"run": [child.pid], "receiver": [receiver.processes()[0].pid], "sender": [os.getpid()]}
        )
        url = f"{base}/v1/channels/webhook/{channel.id}/messages"
        yield Running(url, token, receiver, [child], meter, channel, webhook, database)


def embedded_settings(folder: Path, port: int) -> dict[str, str]:
    """Make the settings of a process without servers."""
    return {"POSTBOTE_DATA_DIR": str(folder), "POSTBOTE_PORT": str(port), "POSTBOTE_ADMIN_TOKEN": ADMIN}


async def find_rate(running: Way, hold_s: float, most: float = 20_000.0) -> Held:
    """Find the highest rate that is held for `hold_s` seconds; checks every message of every try."""
    # Caches are filled and connections opened before anything counts.
    await hold(running, FIRST_RATE / 2, 3.0)
    rate = FIRST_RATE
    if (await hold(running, rate, PROBE_S)).good:
        while rate < most and (await hold(running, rate * STEP, PROBE_S)).good:
            rate *= STEP
        rate *= STEP**0.5
    else:
        rate /= STEP
        while rate > LEAST_RATE and not (await hold(running, rate, PROBE_S)).good:
            rate /= STEP**0.5
    while True:
        found = await hold(running, rate, hold_s)
        if found.good:
            return found
        if rate < LEAST_RATE:
            raise SystemExit(f"not even {rate:.0f} messages a second are held")
        rate *= 0.9


async def hold(running: Way, rate: float, seconds: float) -> Held:
    """Send at a rate, and wait until all has arrived; raises SystemExit where something did not, or out of order."""
    before, seen = running.meter.read(), running.receiver.lines()
    # No more connections than are used each second: the API closes one that asks for nothing.
    connections = min(CONNECTIONS, max(2, int(rate)))
    sent = await send_at(rate, seconds, running.url, running.token, connections=connections)
    if sent.refused:
        raise SystemExit(f"{sent.refused} messages were refused at {rate:.0f} a second")
    deadline = time.monotonic() + SETTLE_S
    while running.receiver.lines() < seen + len(sent.due):
        await asyncio.sleep(0.1)
        if time.monotonic() > deadline:
            raise SystemExit(f"messages did not arrive within {SETTLE_S:g} s at {rate:.0f} a second")
    after = running.meter.read()
    arrivals = running.receiver.arrivals()[seen:]
    due = {running.arrives_as(message): moment for message, moment in sent.due.items()}
    taken = [(arrival.at - due[arrival.webhook_id]) * 1000 for arrival in arrivals]
    cuts = statistics.quantiles(taken, n=100)
    memory = {child.name: child.memory_mb() for child in running.children}
    return Held(rate, cuts[49], cuts[98], after.since(before, len(taken)), memory)


async def check(running: Running) -> None:
    """Check all that arrived since the start against what the bot said."""
    async with running.database.read() as connection:
        rows = (await connection.execute(select(turns.c.responses))).all()
    responses = [BotResponse.read(response) for row in rows for response in row[0]]
    Expected(responses, [running.webhook], running.channel).check(running.receiver.arrivals())


async def measure_rate(running: Running, hold_s: float) -> Held:
    """Find the rate, end the processes, and check everything."""
    found = await find_rate(running, hold_s)
    for child in running.children:
        await child.stop()
    running.receiver.end()
    await check(running)
    return found
