"""One message at a time, from the API to its webhook, beside the steps of its way."""

import asyncio
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

import aiohttp
from aiohttp import web

from bench.end_to_end import Running, on_servers
from bench.servers import Servers
from bench.steps import taking_steps
from broker.registry.webhooks import Webhooks

#: So many messages, then so many times the steps, and again: what the machine does meanwhile meets both alike.
AT_A_TIME = 25


@dataclass(frozen=True)
class OneMessage:
    """Medians, in seconds: of the whole way; of the steps in turn, and each alone, by their names."""

    whole: float
    in_turn: Mapping[str, float]
    alone: Mapping[str, float]


async def measure_one(servers: Servers, number: int) -> OneMessage:
    """Send so many messages, one after the other, and take the steps as often in between."""
    whole: list[float] = []
    async with (
        taking_steps(servers) as steps,
        on_servers(servers) as running,
        sending(running) as send,
    ):
        await send(AT_A_TIME)
        await steps.take(AT_A_TIME)
        steps.forget()
        for _ in range(0, number, AT_A_TIME):
            whole += await send(AT_A_TIME)
            await steps.take(AT_A_TIME)
        in_turn = steps.medians()
        return OneMessage(statistics.median(whole), in_turn, await steps.alone(number))


@asynccontextmanager
async def sending(running: Running) -> AsyncIterator[Callable[[int], Awaitable[list[float]]]]:
    """Provide what sends so many messages, each once the one before has arrived; it returns their times, in seconds.

    The receiver is a server in this process, which knows at once when something came.
    """
    arrived = asyncio.Event()
    moment = 0.0

    async def take(request: web.Request) -> web.Response:
        nonlocal moment
        moment = time.perf_counter()
        arrived.set()
        await request.read()
        return web.Response()

    app = web.Application()
    app.router.add_post("/", take)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        port = runner.addresses[0][1]
        changed = await Webhooks(running.database).update(
            running.webhook.id, {"url": f"http://127.0.0.1:{port}/"}
        )
        assert changed is not None
        async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {running.token}"}) as client:

            async def send(number: int) -> list[float]:
                taken = []
                for count in range(number):
                    body = {"message": {"textMessage": {"text": f"message {count}"}}, "user": {"id": "alone"}}
                    arrived.clear()
                    began = time.perf_counter()
                    async with client.post(running.url, json=body) as answer:
                        if answer.status != 200:
                            raise SystemExit(f"a message was refused: {answer.status}")
                    async with asyncio.timeout(30):
                        await arrived.wait()
                    taken.append(moment - began)
                return taken

            yield send
    finally:
        await runner.cleanup()
