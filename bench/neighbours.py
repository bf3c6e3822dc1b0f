"""How long quiet conversations wait beside busy ones, whose endpoint or bot takes its time, or who say much."""

import asyncio
import os
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from servers.process import free_port
from sqlalchemy import func, select

from bench.accepting import answering
from bench.deployment import deployed
from bench.end_to_end import embedded_settings
from bench.load import Sent, send_at
from bench.processes import Child, start
from bench.receiver import read_arrivals
from bench.servers import Servers
from broker.ids import delivery_id, response_id
from broker.partitions import conversation_key, partition_of
from broker.registry.channels import Channels
from broker.registry.database import Database
from broker.registry.records import Channel, Webhook
from broker.registry.tables import turns
from broker.registry.webhooks import Webhooks

PARTITIONS = 16
ALTERED = "bench.altered"
#: Connections of each sender: answers of the API are quick, so few are enough.
CONNECTIONS = 32
#: How long the last quiet message is waited for, in seconds; one that has not come counts with its wait so far.
PATIENCE_S = 45.0


@dataclass(frozen=True)
class Busy:
    """What the busy conversations do: `rate` messages a second in turn, for some seconds."""

    rate: float
    seconds: float
    users: int = 1
    #: What their endpoint takes to answer, in seconds, and which bot answers them.
    answer_s: float = 0.0
    bot: str = "echo"
    #: True where the quiet ones are of the same channel, and so have the same endpoint and bot.
    same_channel: bool = False
    #: How long they are busy before the quiet ones begin, in seconds; None where their bot has answered all by then.
    lead_s: float | None = 0.0


@dataclass(frozen=True)
class Quiet:
    """What the quiet conversations do, and how long, in seconds."""

    rate: float
    users: int
    seconds: float


@dataclass(frozen=True)
class Waits:
    """How long quiet messages took from their due moment to the webhook, in milliseconds."""

    p50_ms: float
    p99_ms: float


@dataclass(frozen=True)
class Side:
    """One channel with its webhook, its endpoint's log, and where its messages are posted."""

    channel: Channel
    webhook: Webhook
    url: str
    token: str
    log: Path


async def measure_beside(servers: Servers, busy: Busy, quiet: Quiet, *, embedded: bool = False) -> Waits:
    """Measure how long the quiet conversations' messages take while the busy ones are so."""
    async with AsyncExitStack() as stack:
        if embedded:
            base, database = await _run_embedded(servers, stack)
        else:
            base, database = await _run_on_servers(servers, stack)
        of_busy = await _side(servers, stack, base, database, busy.bot, busy.answer_s)
        of_quiet = of_busy if busy.same_channel else await _side(servers, stack, base, database, "echo", 0.0)
        quiet_users = users_of(
            of_quiet.channel.id, "quiet", quiet.users, only=0 if quiet.users == 1 else None
        )
        busy_users = users_of(of_busy.channel.id, "busy", busy.users, only=0 if busy.users == 1 else None)
        # Caches are filled and connections opened before anything counts.
        await _send(of_quiet, 20.0, 1.0, ["warm"])
        await asyncio.sleep(1.0)
        sending = asyncio.create_task(_send(of_busy, busy.rate, busy.seconds, busy_users))
        try:
            if busy.lead_s is None:
                await _answered(database, of_busy, len((await sending).due))
            else:
                await asyncio.sleep(busy.lead_s)
            sent = await _send(of_quiet, quiet.rate, quiet.seconds, quiet_users)
            return await _waits(of_quiet, sent, len(quiet_users))
        finally:
            sending.cancel()
            await asyncio.wait({sending})


def alone(busy: Busy) -> Busy:
    """Return the same load of one that is no trouble: its endpoint and its bot answer at once."""
    return replace(busy, answer_s=0.0, bot="echo")


def silent(busy: Busy) -> Busy:
    """Return one that says next to nothing, with the same endpoint and bot."""
    return replace(busy, rate=1.0, seconds=1.0)


def users_of(channel_id: str, prefix: str, number: int, only: int | None) -> list[str]:
    """Name so many users, of one partition where it is named."""
    found: list[str] = []
    count = 0
    while len(found) < number:
        user = f"{prefix}-{count}"
        count += 1
        if only is None or partition_of(conversation_key(channel_id, user), PARTITIONS) == only:
            found.append(user)
    return found


async def _run_on_servers(servers: Servers, stack: AsyncExitStack) -> tuple[str, Database]:
    deployment = await stack.enter_async_context(deployed(servers, partitions=PARTITIONS))
    port = free_port()
    api = await deployment.start("api", {"POSTBOTE_PORT": str(port)})
    await deployment.start("bot", program=ALTERED)
    await deployment.start("deliver")
    base = f"http://127.0.0.1:{port}"
    await answering(f"{base}/readyz", api)
    return base, deployment.database


async def _run_embedded(servers: Servers, stack: AsyncExitStack) -> tuple[str, Database]:
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=servers.folder)))
    port = free_port()
    child = await start("run", embedded_settings(folder, port), ALTERED)
    stack.push_async_callback(child.stop)
    base = f"http://127.0.0.1:{port}"
    await answering(f"{base}/readyz", child)
    database = Database(f"sqlite:///{folder}/registry.db")
    stack.push_async_callback(database.close)
    return base, database


async def _side(
    servers: Servers, stack: AsyncExitStack, base: str, database: Database, bot: str, answer_s: float
) -> Side:
    log = servers.folder / f"neighbours-{free_port()}.log"
    url = await stack.enter_async_context(endpoint(answer_s, log))
    channel, token = await Channels(database).create("bench", {"type": bot})
    webhook = await Webhooks(database).create(channel.id, url=url)
    assert webhook is not None
    return Side(channel, webhook, f"{base}/v1/channels/webhook/{channel.id}/messages", token, log)


@asynccontextmanager
async def endpoint(answer_s: float, log: Path, port: int = 0) -> AsyncIterator[str]:
    """Run a receiver that answers after so long, and writes down what came; gives its URL."""
    port = port or free_port()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bench.slow", str(port), str(answer_s), str(log)), env=os.environ.copy()
    )
    child = Child("slow", process)
    try:
        await answering(f"http://127.0.0.1:{port}/", child)
        yield f"http://127.0.0.1:{port}/"
    finally:
        await child.stop()


async def _send(side: Side, rate: float, seconds: float, users: Sequence[str]) -> Sent:
    sent = await send_at(rate, seconds, side.url, side.token, users, CONNECTIONS)
    if sent.refused:
        raise SystemExit(f"{sent.refused} messages were refused at {rate:.0f} a second")
    return sent


async def _answered(database: Database, side: Side, number: int) -> None:
    query = select(func.count()).select_from(turns).where(turns.c.channel_id == side.channel.id)
    async with asyncio.timeout(PATIENCE_S):
        answered = 0
        while answered < number:
            await asyncio.sleep(0.1)
            async with database.read() as connection:
                answered = (await connection.execute(query)).scalar_one()


async def _waits(side: Side, sent: Sent, users: int) -> Waits:
    due = {delivery_id(response_id(each, 1), side.webhook.id): at for each, at in sent.due.items()}
    deadline = time.monotonic() + PATIENCE_S
    arrived: dict[str, float] = {}
    while len(arrived) < len(due) and time.monotonic() < deadline:
        await asyncio.sleep(0.2)
        arrived = {one.webhook_id: one.at for one in read_arrivals(side.log) if one.webhook_id in due}
    _check_order(due, arrived, users)
    now = time.time()
    taken = [(arrived.get(each, now) - at) * 1000 for each, at in due.items()]
    cuts = statistics.quantiles(taken, n=100)
    return Waits(cuts[49], cuts[98])


def _check_order(due: dict[str, float], arrived: dict[str, float], users: int) -> None:
    # Users say something in turn, so the number of a message tells whose it is.
    lanes: dict[int, list[float]] = {}
    for number, each in enumerate(sorted(due, key=lambda one: due[one])):
        if each in arrived:
            lanes.setdefault(number % users, []).append(arrived[each])
    if any(lane != sorted(lane) for lane in lanes.values()):
        raise SystemExit("quiet messages changed places")
