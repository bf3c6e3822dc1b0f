"""The floors of one message's way: each step alone, one after the other, in the same run as the whole way."""

import asyncio
import statistics
import sys
import time
from collections.abc import Awaitable, Callable

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

MESSAGE = {"message": {"textMessage": {"text": "message 7"}}, "user": {"id": "alone"}}


async def median_of(step: Callable[[int], Awaitable[None]], number: int) -> float:
    """Do a step so often, and return its median time, in seconds."""
    taken = []
    for count in range(number + 20):
        began = time.perf_counter()
        await step(count)
        taken.append(time.perf_counter() - began)
    return statistics.median(taken[20:])


async def measure_steps(servers: Servers, number: int) -> dict[str, float]:
    """Measure a POST, a publish with its consume, a commit and a query; the medians in seconds."""
    return {
        "POST": await _post(number),
        "publish and consume": await _hop(servers, number),
        **await _database(servers, number),
    }


async def _post(number: int) -> float:
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

            return await median_of(step, number)
    finally:
        await child.stop()


async def _hop(servers: Servers, number: int) -> float:
    async with deployed(servers, partitions=1) as deployment, deployment.broker() as broker:
        responses = make_responses(deployment.channel, 1, number + 20)
        async with broker.subscribe(outbound_queue(partition_word(0)), 100) as held:

            async def step(count: int) -> None:
                await broker.publish(
                    RESPONSES, response_envelope(responses[count].model_dump(mode="json"), 1)
                )
                for envelope in await held.receive():
                    held.ack(envelope)

            return await median_of(step, number)


async def _database(servers: Servers, number: int) -> dict[str, float]:
    async with servers.database() as url:
        connection = await asyncpg.connect(url, timeout=10)
        try:
            await connection.execute("CREATE TABLE steps (id int PRIMARY KEY, said text)")

            async def step(count: int) -> None:
                await connection.execute("INSERT INTO steps VALUES ($1, $2)", count, "x" * 400)

            async def ask(count: int) -> None:
                await connection.fetchval("SELECT said FROM steps WHERE id = $1", count)

            return {"commit": await median_of(step, number), "query": await median_of(ask, number)}
        finally:
            await connection.close(timeout=10)
