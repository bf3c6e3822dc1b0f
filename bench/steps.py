"""The floors of one message's way: its steps one after the other, in the same run as the whole way.

Taken in turn, as in the whole way, each server has slept through the other steps when its own comes. Taken alone,
each again and again, it is found with warm caches and awake: less than any message meets that comes by itself.
"""

import asyncio
import statistics
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

import aiohttp
import asyncpg

from bench.accepting import answering
from bench.deployment import deployed
from bench.processes import Child
from bench.responses import make_responses
from bench.servers import Servers, free_port
from broker.partitions import partition_word
from broker.topology import RESPONSES, outbound_queue
from consumers.bot_worker import response_envelope

#: The first ones do not count.
WARM = 20
MESSAGE = {"message": {"textMessage": {"text": "message 7"}}, "user": {"id": "alone"}}


Step = Callable[[int], Awaitable[None]]
#: What one message does on its way, in order.
WAY = ("POST", "publish and consume", "commit", "publish and consume", "POST")


async def measure_steps(servers: Servers, number: int) -> tuple[dict[str, float], dict[str, float]]:
    """Measure the steps, in turn and alone; the medians in seconds."""
    async with AsyncExitStack() as stack:
        steps: dict[str, Step] = {
            "POST": await stack.enter_async_context(_posting()),
            "publish and consume": await stack.enter_async_context(_hopping(servers)),
            "commit": await stack.enter_async_context(_committing(servers)),
        }
        in_turn: dict[str, list[float]] = {name: [] for name in steps}
        for count in range(number + WARM):
            for place, name in enumerate(WAY):
                in_turn[name].append(await _time(steps[name], count * len(WAY) + place))
        alone = {
            name: [await _time(step, -1 - count) for count in range(number + WARM)]
            for name, step in steps.items()
        }
    return _medians(in_turn), _medians(alone)


def sum_of(steps: Mapping[str, float]) -> float:
    """Add up the steps of one message's way from the API to its webhook."""
    return sum(steps[name] for name in WAY)


async def _time(step: Step, count: int) -> float:
    began = time.perf_counter()
    await step(count)
    return time.perf_counter() - began


def _medians(taken: Mapping[str, Sequence[float]]) -> dict[str, float]:
    return {name: statistics.median(times[WARM:]) for name, times in taken.items()}


@asynccontextmanager
async def _posting() -> AsyncIterator[Step]:
    port = free_port()
    child = Child(
        "handler",
        await asyncio.create_subprocess_exec(sys.executable, "-m", "bench.floors.json_handler", str(port)),
    )
    try:
        url = f"http://127.0.0.1:{port}/"
        await answering(url, child)
        async with aiohttp.ClientSession() as client:

            async def step(_: int) -> None:
                async with client.post(url, json=MESSAGE) as answer:
                    await answer.read()

            yield step
    finally:
        await child.stop()


@asynccontextmanager
async def _hopping(servers: Servers) -> AsyncIterator[Step]:
    async with deployed(servers, partitions=1) as deployment, deployment.broker() as broker:
        (response,) = make_responses(deployment.channel, 1, 1)
        async with broker.subscribe(outbound_queue(partition_word(0)), 100) as held:

            async def step(_: int) -> None:
                await broker.publish(RESPONSES, response_envelope(response.model_dump(mode="json"), 1))
                for envelope in await held.receive():
                    held.ack(envelope)

            yield step


@asynccontextmanager
async def _committing(servers: Servers) -> AsyncIterator[Step]:
    async with servers.database() as url:
        connection = await asyncpg.connect(url, timeout=10)
        try:
            await connection.execute("CREATE TABLE steps (id int PRIMARY KEY, said text)")

            async def step(count: int) -> None:
                await connection.execute("INSERT INTO steps VALUES ($1, $2)", count, "x" * 400)

            yield step
        finally:
            await connection.close(timeout=10)
