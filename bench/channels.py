"""What a message costs the API and the bot worker, with RabbitMQ and PostgreSQL, as channels grow in number."""

import asyncio
import time
from contextlib import AsyncExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

from servers.process import free_port

from bench.accepting import answering, post
from bench.deliveries import WAIT_S, Measured
from bench.deployment import deployed
from bench.servers import Servers
from bench.turns import responses_queued
from broker.registry.channels import Channels

SCRIPT = Path(__file__).with_name("channels.lua")
#: Each channel is met before anything counts, at this rate at least, in messages a second.
LEAST_RATE = 500


async def measure_channels(servers: Servers, seconds: int, channels: int) -> Measured:
    """Post to so many channels in turn, as fast as the API answers, until the bot worker has answered it all."""
    async with AsyncExitStack() as stack:
        deployment = await stack.enter_async_context(deployed(servers))
        folder = stack.enter_context(TemporaryDirectory(prefix="postbote-bench-"))
        store = Channels(deployment.database)
        made = [await store.create("bench", {"type": "echo"}) for _ in range(channels)]
        targets = Path(folder) / "targets"
        targets.write_text(
            "".join(f"/v1/channels/webhook/{channel.id}/messages {token}\n" for channel, token in made)
        )
        port = free_port()
        api = await deployment.start("api", {"POSTBOTE_PORT": str(port)})
        await deployment.start("bot")
        url = f"http://127.0.0.1:{port}/"
        await answering(f"{url}readyz", api)
        meter = deployment.meter()

        async def load(for_s: int, before: int) -> tuple[int, float]:
            accepted, rate = await post(url, "", for_s, SCRIPT, {"BENCH_TARGETS": str(targets)})
            deadline = time.monotonic() + WAIT_S
            while (answered := await responses_queued(deployment)) < before + accepted:
                if time.monotonic() > deadline:
                    raise SystemExit(f"only {answered - before} of {accepted} messages were answered in time")
                await asyncio.sleep(0.2)
            return accepted, rate

        # What wrk sent and heard no answer of at its end is on the queues too, and counts for nobody.
        await load(1 + channels // LEAST_RATE, 0)
        queued = await responses_queued(deployment)
        began = meter.read()
        accepted, rate = await load(seconds, queued)
        found = meter.read().since(began, accepted)
        memory = api.memory_mb()
        await deployment.stop()
        return Measured(rate, found, memory)
