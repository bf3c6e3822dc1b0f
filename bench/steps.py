"""The floors of one message's way: its steps one after the other, in the same run as the whole way.

Taken in turn, as in the whole way, each server has slept through the other steps when its own comes. Taken alone,
each again and again, it is found with warm caches and awake: less than any message meets that comes by itself.
"""

import asyncio
import statistics
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager

import aiohttp
import asyncpg
from servers.process import free_port

from bench.accepting import answering
from bench.deployment import deployed
from bench.processes import Child
from bench.responses import make_responses
from bench.servers import Servers
from broker.partitions import partition_word
from broker.topology import OUTBOUND, outbound_queue
from consumers.bot_worker import response_envelope

MESSAGE = {"message": {"textMessage": {"text": "message 7"}}, "user": {"id": "alone"}}


Step = Callable[[int], Awaitable[None]]
#: What one message does on its way, in order.
WAY = ("POST", "publish and consume", "commit", "publish and consume", "POST")


class Steps:
    """Takes the steps, and keeps how long each took, in seconds."""

    def __init__(self, steps: Mapping[str, Step]) -> None:
        self._steps = steps
        self._count = 0
        self._taken: dict[str, list[float]] = {name: [] for name in steps}

    async def take(self, times: int) -> None:
        """Take all of them in turn, so often."""
        for _ in range(times):
            for name in WAY:
                self._taken[name].append(await self._time(name))

    def medians(self) -> dict[str, float]:
        """Return what each took where they were taken in turn."""
        return {name: statistics.median(taken) for name, taken in self._taken.items()}

    def forget(self) -> None:
        """Begin anew, once everything is warm."""
        for taken in self._taken.values():
            taken.clear()

    async def alone(self, times: int) -> dict[str, float]:
        """Take each again and again, so often; returns the medians."""
        return {
            name: statistics.median([await self._time(name) for _ in range(times)]) for name in self._steps
        }

    async def _time(self, name: str) -> float:
        self._count += 1
        began = time.perf_counter()
        await self._steps[name](self._count)
        return time.perf_counter() - began


@asynccontextmanager
async def taking_steps(servers: Servers) -> AsyncIterator[Steps]:
    """Run what the steps are taken on, each apart from the others and from what is measured."""
    async with AsyncExitStack() as stack:
        yield Steps(
            {
                "POST": await stack.enter_async_context(_posting()),
                "publish and consume": await stack.enter_async_context(_hopping(servers)),
                "commit": await stack.enter_async_context(_committing(servers)),
            }
        )


def sum_of(steps: Mapping[str, float]) -> float:
    """Add up the steps of one message's way from the API to its webhook."""
    return sum(steps[name] for name in WAY)


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
                await broker.publish(OUTBOUND, response_envelope(response.model_dump(mode="json"), 1))
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
