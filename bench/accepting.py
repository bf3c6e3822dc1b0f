"""How fast the API takes messages in, confirmed on the queue, beside a handler that only reads the JSON."""

import asyncio
import os
import shutil
import sys
from collections.abc import Mapping
from contextlib import AsyncExitStack
from pathlib import Path

import aio_pika
import aiohttp
from servers.process import free_port

from bench.deliveries import Measured
from bench.deployment import deployed
from bench.processes import Child, Meter
from bench.servers import Servers
from broker.partitions import partition_word
from broker.topology import inbound_queue

CONNECTIONS = 64
SCRIPT = Path(__file__).with_name("post.lua")


async def measure_accepting(servers: Servers, seconds: int) -> Measured:
    """Post to one API process as fast as it answers; checks that what it accepted is on the queues."""
    async with AsyncExitStack() as stack:
        deployment = await stack.enter_async_context(deployed(servers))
        port = free_port()
        child = await deployment.start("api", {"POSTBOTE_PORT": str(port)})
        url = f"http://127.0.0.1:{port}/v1/channels/webhook/{deployment.channel.id}/messages"
        await answering(f"http://127.0.0.1:{port}/readyz", child)
        meter = deployment.meter()
        await post(url, deployment.token, 1)
        before = meter.read()
        accepted, rate = await post(url, deployment.token, seconds)
        after = meter.read()
        memory = child.memory_mb()
        await deployment.stop()
        queued = 0
        async with await aio_pika.connect(deployment.settings["POSTBOTE_AMQP_URL"]) as connection:
            channel = await connection.channel()
            for partition in range(deployment.partitions):
                queue = await channel.declare_queue(inbound_queue(partition_word(partition)), passive=True)
                queued += queue.declaration_result.message_count or 0
        # Of the second before, too; and those whose answer nobody waited for at the end.
        if queued < accepted:
            raise SystemExit(f"{accepted} messages were accepted, and {queued} are on the queues")
        return Measured(rate, after.since(before, accepted), memory)


async def measure_json_handler(seconds: int) -> Measured:
    """Post as fast to the handler that only reads the JSON."""
    port = free_port()
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bench.floors.json_handler", str(port)
    )
    child = Child("handler", process)
    try:
        url = f"http://127.0.0.1:{port}/v1/channels/webhook/bench/messages"
        await answering(url, child)
        meter = Meter({"handler": [child.pid]})
        await post(url, "token", 1)
        before = meter.read()
        accepted, rate = await post(url, "token", seconds)
        return Measured(rate, meter.read().since(before, accepted), child.memory_mb())
    finally:
        await child.stop()


async def answering(url: str, child: Child) -> None:
    """Wait until a server answers."""
    async with asyncio.timeout(30), aiohttp.ClientSession() as client:
        while child.process.returncode is None:
            try:
                async with client.get(url) as answer:
                    if answer.status < 500:
                        return
            except aiohttp.ClientError:
                pass
            await asyncio.sleep(0.02)
    raise RuntimeError(f"{child.name} ended before it answered")


async def post(
    url: str,
    token: str,
    seconds: int,
    script: Path = SCRIPT,
    environment: Mapping[str, str] | None = None,
) -> tuple[int, float]:
    """Post with wrk for some seconds; returns how many were accepted, and how many a second."""
    if shutil.which("wrk") is None:
        raise RuntimeError("The benchmark of the API needs wrk; on Debian: apt-get install wrk")
    run = await asyncio.create_subprocess_exec(
        *("wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s", "-s", str(script), url),
        env={**os.environ, "BENCH_TOKEN": token, **(environment or {})},
        stdout=asyncio.subprocess.PIPE,
    )
    output, _ = await run.communicate()
    said = next(line for line in output.decode().splitlines() if line.startswith("BENCH "))
    requests, microseconds, refused = map(int, said.split()[1:])
    if run.returncode or refused:
        raise SystemExit(f"{refused} of {requests} messages were not accepted")
    return requests, requests / microseconds * 1e6
