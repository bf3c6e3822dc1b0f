"""Run the peer that goes the whole way, and find the rate that it holds, as that of a deployment is found."""

import asyncio
import base64
import os
import secrets
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

from servers.process import free_port

from bench.accepting import answering
from bench.end_to_end import Held, Way, find_rate
from bench.peers.catalogue import FOLDER, PIPELINE, environment, install
from bench.processes import Child, Meter
from bench.receiver import Arrival
from bench.servers import Servers

TOKEN = "bench-peer-token"
#: Seconds until the bot and the delivery have declared their queues and consume.
SETTLE_S = 3.0


@asynccontextmanager
async def pipeline(servers: Servers) -> AsyncIterator[Way]:
    """Run the peer's three processes on RabbitMQ, with one webhook at nginx."""
    python = await asyncio.to_thread(install, PIPELINE)
    async with AsyncExitStack() as stack:
        receiver = stack.enter_context(servers.nginx())
        given = {
            **environment(),
            "BENCH_AMQP_URL": servers.vhost(),
            "BENCH_WEBHOOK_URL": receiver.url,
            "BENCH_TOKEN": TOKEN,
            "BENCH_SECRET": base64.b64encode(secrets.token_bytes(32)).decode(),
        }
        port = free_port()
        command = (str(python.parent / "faststream"), "run")
        children = []
        for name, run in (
            ("door", (str(python), str(PIPELINE.file), "door", str(port))),
            ("bot", (*command, "pipeline_peer:bot", "--workers", "1")),
            ("delivery", (*command, "pipeline_peer:delivery", "--workers", "1")),
        ):
            child = await _start(name, run, given)
            stack.push_async_callback(child.stop)
            children.append(child)
        base = f"http://127.0.0.1:{port}"
        await answering(base, children[0])
        await asyncio.sleep(SETTLE_S)
        meter = Meter(
            {
                "rabbitmq": [servers.rabbitmq.pid],
                **{child.name: [child.pid] for child in children},
                "receiver": [receiver.processes()[0].pid],
                "sender": [os.getpid()],
            }
        )
        yield Way(f"{base}/messages", TOKEN, receiver, children, meter)


async def measure_pipeline(servers: Servers, hold_s: float) -> Held:
    """Find the rate that the peer holds, and check that each of its deliveries came once, with a signature."""
    async with pipeline(servers) as running:
        found = await find_rate(running, hold_s)
        for child in running.children:
            await child.stop()
        running.receiver.end()
        check(running.receiver.arrivals())
    return found


def check(arrivals: Sequence[Arrival]) -> None:
    """Raise SystemExit where a delivery came twice or without a signature. Order is not the peer's to keep."""
    if len({arrival.webhook_id for arrival in arrivals}) != len(arrivals):
        raise SystemExit("the peer delivered a message twice")
    if not all(arrival.signature.startswith("v1,") for arrival in arrivals):
        raise SystemExit("the peer delivered a message without a signature")


async def _start(name: str, command: Sequence[str], given: Mapping[str, str]) -> Child:
    process = await asyncio.create_subprocess_exec(
        *command, cwd=FOLDER, env=given, stdin=asyncio.subprocess.DEVNULL, stdout=sys.stderr
    )
    return Child(name, process)
