"""Endpoints that take their time, and many that were away and come back: what one delivery worker makes of them."""

import asyncio
import time
from contextlib import AsyncExitStack
from itertools import pairwise
from pathlib import Path

from servers.process import free_port

from bench.deployment import deployed
from bench.neighbours import endpoint
from bench.receiver import read_arrivals
from bench.responses import make_responses, publish
from bench.servers import Servers

#: The places that one endpoint can have at most (consumers/concurrency.py).
PLACES = 64
#: Before anything counts: so many answers one after the other, and at least so long, in seconds.
RAMP_ANSWERS, RAMP_S = 6, 3.0
#: What counts: so many answers one after the other, and at least so long, in seconds.
COUNTED_ANSWERS, COUNTED_S = 3, 3.0
#: How long many endpoints stay away, and how long their deliveries are waited for after their return, in seconds.
AWAY_S, PATIENCE_S = 40.0, 150.0


async def measure_curve(servers: Servers, answer_s: float) -> float:
    """Measure deliveries a second to an endpoint that answers after so long, ÷ (places ÷ what it takes)."""
    ramp, counted = max(RAMP_S, RAMP_ANSWERS * answer_s), max(COUNTED_S, COUNTED_ANSWERS * answer_s)
    most = PLACES / answer_s
    users = 500
    async with AsyncExitStack() as stack:
        deployment = await stack.enter_async_context(deployed(servers))
        log = servers.folder / f"curve-{answer_s}.log"
        url = await stack.enter_async_context(endpoint(answer_s, log))
        await deployment.webhooks(url)
        each = max(2, int(most * (ramp + counted) * 1.3) // users + 1)
        async with deployment.broker() as broker:
            await publish(broker, make_responses(deployment.channel, users, each), deployment.partitions)
        await servers.checkpoint()
        await deployment.start("deliver")
        first = await _first(log, answer_s)
        await asyncio.sleep(ramp + counted + 0.2)
        begun = first + ramp
        moments = [one.at for one in read_arrivals(log) if one.webhook_id != "-"]
        # Before the endpoint ends, so that nothing of this looks like an endpoint that fails.
        await deployment.stop()
    return sum(begun <= at < begun + counted for at in moments) / counted / most


async def _first(log: Path, answer_s: float) -> float:
    async with asyncio.timeout(30 + answer_s):
        while not (moments := [one.at for one in read_arrivals(log) if one.webhook_id != "-"]):  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    return moments[0]


async def measure_return(servers: Servers, webhooks: int, each: int) -> tuple[float, float]:
    """Measure the longest pause after so many endpoints came back, and how long until all is delivered; in seconds.

    Each has a channel of its own and `each` messages of one user; they are away together, and back together.
    """
    async with AsyncExitStack() as stack:
        deployment = await stack.enter_async_context(deployed(servers))
        # Nothing listens there until they come back.
        port = free_port()
        made = []
        for _ in range(webhooks):
            channel = await deployment.another_channel()
            await deployment.webhooks(f"http://127.0.0.1:{port}/", 1, channel)
            made.append(make_responses(channel, 1, each))
        await deployment.start("deliver")
        async with deployment.broker() as broker:
            await publish(broker, [one for of_each in made for one in of_each], deployment.partitions)
        await asyncio.sleep(AWAY_S)
        log = servers.folder / "return.log"
        await stack.enter_async_context(endpoint(0.0, log, port))
        back = time.time()
        deadline = time.monotonic() + PATIENCE_S
        moments: list[float] = []
        while len(moments) < webhooks * each:
            if time.monotonic() > deadline:
                raise SystemExit(f"{len(moments)} of {webhooks * each} came within {PATIENCE_S:g} s")
            await asyncio.sleep(0.5)
            moments = [one.at for one in read_arrivals(log) if one.webhook_id != "-"]
    points = [back, *sorted(moments)]
    return max(after - before for before, after in pairwise(points)), points[-1] - back
