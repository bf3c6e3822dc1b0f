"""How fast a delivery worker delivers what waits in its queues, every feature on, beside a loop that only POSTs."""

import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from itertools import zip_longest

from bench.deployment import Deployment, deployed
from bench.receiver import Nginx
from bench.responses import Expected, check, make_responses, publish
from bench.servers import Servers

WAIT_S = 180.0
#: What counts lies between these parts of the messages: neither the start nor the tail.
FROM, TO = 0.2, 0.95


@dataclass(frozen=True)
class Measured:
    """What came of one measurement: messages a second, CPU in microseconds a message by process, memory in MB."""

    rate: float
    cpu_us: Mapping[str, float] = field(default_factory=dict)
    memory_mb: float = 0.0


async def measure_post_only(receiver: Nginx, seconds: float) -> Measured:
    """Measure the loop that only POSTs."""
    found = await run_floor("post_only", receiver.url, str(seconds))
    return Measured(found["rate"], {"client": found["cpu_us"]})


async def measure_reader(servers: Servers, messages: int) -> Measured:
    """Measure a worker's own reading of queues with a POST and an acknowledgement, and nothing else."""
    partitions = 16
    with servers.nginx() as receiver:
        async with deployed(servers, partitions=partitions) as deployment:
            responses = make_responses(deployment.channel, 500, max(1, messages // 500))
            async with deployment.broker() as broker:
                await publish(broker, responses, partitions)
            found = await run_floor(
                "reader",
                deployment.settings["POSTBOTE_AMQP_URL"],
                receiver.url,
                str(partitions),
                str(len(responses)),
            )
    return Measured(found["rate"], {"client": found["cpu_us"]})


async def run_floor(name: str, *arguments: str) -> dict[str, float]:
    """Run one of the floors in a process of its own; raises RuntimeError where it fails."""
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", f"bench.floors.{name}", *arguments), stdout=asyncio.subprocess.PIPE
    )
    output, _ = await child.communicate()
    if child.returncode:
        raise RuntimeError(f"the floor {name} failed")
    found: dict[str, float] = json.loads(output)
    return found


async def nothing(deployment: Deployment) -> None:
    """Prepare nothing."""


async def measure_deliveries(
    servers: Servers,
    *,
    messages: int,
    users: int,
    partitions: int = 16,
    channels: int = 1,
    environment: Mapping[str, str] | None = None,
    prepare: Callable[[Deployment], Awaitable[None]] = nothing,
) -> Measured:
    """Fill the queues, start one worker, and measure until all is delivered; checks what arrived.

    With several channels each has a webhook of its own; users and messages are shared out among them.
    """
    async with AsyncExitStack() as stack:
        receiver = stack.enter_context(servers.nginx())
        deployment = await stack.enter_async_context(
            deployed(servers, partitions=partitions, environment=environment)
        )
        expected = []
        for number in range(channels):
            channel = deployment.channel if number == 0 else await deployment.another_channel()
            made = await deployment.webhooks(receiver.url, 1, channel)
            here = max(1, users // channels)
            responses = make_responses(channel, here, max(1, messages // channels // here))
            expected.append(Expected(responses, made, channel))
        # A round of all channels after the other, as they would come.
        rounds = zip_longest(*(each.responses for each in expected))
        everything = [response for one_each in rounds for response in one_each if response is not None]
        async with deployment.broker() as broker:
            await publish(broker, everything, partitions)
        await prepare(deployment)
        await servers.checkpoint()
        await deployment.start("deliver")
        found = await watch(deployment, receiver, len(everything))
        await deployment.stop()
        receiver.end()
        check(expected, receiver.arrivals())
        return found


async def watch(deployment: Deployment, receiver: Nginx, total: int) -> Measured:
    """Measure from one part of the deliveries to another; raises SystemExit where they do not come."""
    meter = deployment.meter({"nginx": [receiver.processes()[0].pid]})
    deadline = time.monotonic() + WAIT_S
    begun: tuple[int, float] | None = None
    before = after = meter
    done, memory = 0, 0.0
    while (count := receiver.lines()) < total:
        if begun is None and count >= FROM * total:
            before = meter.read()
            begun = receiver.lines(), before.at
        elif begun is not None and not done and count >= TO * total:
            after, done = meter.read(), receiver.lines() - begun[0]
        memory = max([memory, *(child.memory_mb() for child in deployment.children)])
        if time.monotonic() > deadline:
            raise SystemExit(f"only {count} of {total} deliveries arrived within {WAIT_S:g} s")
        await asyncio.sleep(0.05)
    if begun is None or not done:
        raise SystemExit(f"{total} deliveries are too few to measure: they arrived at once")
    return Measured(done / (after.at - before.at), after.since(before, done), memory)
