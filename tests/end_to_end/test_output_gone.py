"""Nobody reads what a process writes, or nobody can: it goes on with its work, and connects anew after a cut."""

import asyncio
import fcntl
import json
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from pathlib import Path

import aiohttp
import pytest
from deployment import Deployment
from processes import ARRIVAL_S, READY_S, Process, Receiver, until
from proxy import Proxy

#: What became of a process' standard output and error.
LOSSES = ("closed", "a disk that is full", "a pipe without a reader", "a reader that stands still")


class Unheard(Process):
    """A process whose output nobody can read."""

    def __init__(self, command: str, environment: dict[str, str], log: Path, loss: str) -> None:
        super().__init__(command, environment, log)
        self._loss = loss
        self._ends: list[int] = []

    async def start(self) -> "Unheard":
        """Start it; it cannot say when it is ready."""
        clean = {key: value for key, value in os.environ.items() if not key.startswith("POSTBOTE_")}
        words = [sys.executable, "-m", "consumers.cli.main", self.command]
        if self._loss == "closed":
            words = ["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", *words]
        output = self._output()
        self._child = await asyncio.create_subprocess_exec(
            *words, env={**clean, **self._environment}, stdout=output, stderr=output
        )
        os.close(output)
        return self

    def _output(self) -> int:
        if self._loss == "closed":
            return os.open(os.devnull, os.O_WRONLY)
        if self._loss == "a disk that is full":
            return os.open("/dev/full", os.O_WRONLY)
        reader, writer = os.pipe()
        if self._loss == "a pipe without a reader":
            os.close(reader)
        else:
            self._ends.append(reader)
            # Full already, so that the first line finds no room.
            os.write(writer, bytes(fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)))
        return writer

    async def kill(self) -> None:
        """End it as a crash would."""
        await super().kill()
        for end in self._ends:
            with suppress(OSError):
                os.close(end)


async def start(deployment: Deployment, **losses: str) -> list[Unheard]:
    """Start a process of each kind, with what became of its output."""
    started = []
    for command, loss in losses.items():
        log = deployment.folder / f"{len(deployment.processes)}-{command}.log"
        process = Unheard(command, deployment.environment, log, loss)
        deployment.processes.append(process)
        started.append(await process.start())
    await eventually(lambda: answers(deployment), READY_S)
    return started


async def eventually(condition: Callable[[], Awaitable[bool]], within_s: float) -> None:
    """Wait for what other processes bring about, by asking them."""
    async with asyncio.timeout(within_s):
        while not await condition():  # noqa: ASYNC110 - it happens in another process
            await asyncio.sleep(0.05)


async def answers(deployment: Deployment) -> bool:
    with suppress(aiohttp.ClientError):
        async with deployment.api.session.get(f"{deployment.api.base}/healthz") as answer:
            return answer.status == 200
    return False


async def say_until_taken(deployment: Deployment, channel: str, token: str, text: str) -> None:
    async def taken() -> bool:
        return await deployment.api.say(channel, token, "user", text) == 200

    await eventually(taken, READY_S)


@pytest.fixture
async def broker(servers: Deployment) -> AsyncIterator[Proxy]:
    """Provide what stands before RabbitMQ for the deployment, and can cut its connections."""
    proxy = Proxy.before(servers.environment["POSTBOTE_AMQP_URL"])
    await proxy.open()
    servers.environment["POSTBOTE_AMQP_URL"] = proxy.url(servers.environment["POSTBOTE_AMQP_URL"])
    yield proxy
    await proxy.close()


async def test_processes_that_cannot_log_connect_anew_after_a_cut_and_end_when_told(
    servers: Deployment, broker: Proxy, receiver: Receiver
) -> None:
    await servers.start("migrate")
    assert await servers.processes[0].finish() == 0
    started = await start(servers, api=LOSSES[2], bot=LOSSES[1], deliver=LOSSES[3])
    channel, token = await servers.api.channel()
    await servers.api.webhook(channel, receiver, "/hook")
    await say_until_taken(servers, channel, token, "1")
    await until(lambda: receiver.distinct("/hook") == 1, ARRIVAL_S, "a delivery before the cut")
    broker.cut()
    await say_until_taken(servers, channel, token, "2")
    await until(lambda: "2" in receiver.texts["user"], ARRIVAL_S, "a delivery after the cut")
    for process in started:
        assert await process.stop() == 0


@pytest.mark.parametrize("loss", LOSSES)
async def test_all_in_one_process_with_the_demo_goes_on_without_a_reader(
    embedded: Deployment, receiver: Receiver, loss: str
) -> None:
    embedded.environment["POSTBOTE_DEMO"] = "1"
    (process,) = await start(embedded, run=loss)
    await embedded.api.webhook("demo", receiver, "/hook")
    token = (Path(embedded.environment["POSTBOTE_DATA_DIR"]) / "demo-token").read_text().strip()
    await say_until_taken(embedded, "demo", token, "show everything")
    await until(lambda: receiver.distinct("/hook") > 0, ARRIVAL_S, "the answer")

    # The demo's own webhook prints what it gets: it is delivered as well as the test's.
    async def all_delivered() -> bool:
        found = json.dumps(await embedded.api.admin("GET", "/v1/channels/demo/deliveries"))
        return "pending" not in found and "delivered" in found

    await eventually(all_delivered, ARRIVAL_S)
    assert await process.stop() == 0
