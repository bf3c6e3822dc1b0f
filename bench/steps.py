"""The floors of one message's way: each step alone, one after the other, in the same run as the whole way."""

import asyncio
import statistics
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

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


@dataclass(frozen=True, slots=True)
class Often:
    """How often a step is done, and how long nothing is done before each, in seconds."""

    number: int
    pause_s: float = 0.0

    async def median_of(self, step: Callable[[int], Awaitable[None]]) -> float:
        """Do a step so often, and return its median time, in seconds."""
        taken = []
        for count in range(self.number + WARM):
            await asyncio.sleep(self.pause_s)
            began = time.perf_counter()
            await step(count)
            taken.append(time.perf_counter() - began)
        return statistics.median(taken[WARM:])


async def measure_steps(servers: Servers, often: Often) -> dict[str, float]:
    """Measure a POST, a publish with its consume, a commit and a query; the medians in seconds."""
    return {
        "POST": await _post(often),
        "publish and consume": await _hop(servers, often),
        **await _database(servers, often),
    }


def sum_of(steps: Mapping[str, float]) -> float:
    """Add up the steps of one message's way from the API to its webhook."""
    return 2 * steps["POST"] + 2 * steps["publish and consume"] + steps["commit"]


async def _post(often: Often) -> float:
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

            return await often.median_of(step)
    finally:
        await child.stop()


async def _hop(servers: Servers, often: Often) -> float:
    async with deployed(servers, partitions=1) as deployment, deployment.broker() as broker:
        responses = make_responses(deployment.channel, 1, often.number + WARM)
        async with broker.subscribe(outbound_queue(partition_word(0)), 100) as held:

            async def step(count: int) -> None:
                await broker.publish(
                    RESPONSES, response_envelope(responses[count].model_dump(mode="json"), 1)
                )
                for envelope in await held.receive():
                    held.ack(envelope)

            return await often.median_of(step)


async def _database(servers: Servers, often: Often) -> dict[str, float]:
    async with servers.database() as url:
        connection = await asyncpg.connect(url, timeout=10)
        try:
            await connection.execute("CREATE TABLE steps (id int PRIMARY KEY, said text)")

            async def step(count: int) -> None:
                await connection.execute("INSERT INTO steps VALUES ($1, $2)", count, "x" * 400)

            async def ask(count: int) -> None:
                await connection.fetchval("SELECT said FROM steps WHERE id = $1", count)

            return {"commit": await often.median_of(step), "query": await often.median_of(ask)}
        finally:
            await connection.close(timeout=10)
