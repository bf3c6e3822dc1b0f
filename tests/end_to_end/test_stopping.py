"""A process that is told to stop ends within its grace, whatever its broker does at that moment."""

import asyncio
import time

from deployment import Deployment
from processes import Process, until
from servers.rabbitmq_node import Node

GRACE_S = 2.0
#: What a process may take after its grace to close connections and files, and what a busy machine adds.
CLOSING_S = 1.8 + 1.5


async def test_a_stop_in_the_middle_of_a_brokers_restart_ends_within_the_grace(
    servers: Deployment, rabbitmq: Node
) -> None:
    servers.environment["POSTBOTE_SHUTDOWN_GRACE_S"] = f"{GRACE_S:g}"
    await servers.start("migrate")
    assert await servers.processes[0].finish() == 0
    started = await servers.start("bot", "deliver")
    await asyncio.to_thread(rabbitmq.ctl, "stop_app")
    coming_back = asyncio.create_task(asyncio.to_thread(rabbitmq.ctl, "start_app"))

    async def stop(process: Process) -> tuple[int, float]:
        # One of its two connections is there again, and the other about to be.
        await until(lambda: process.output().count("broker.connected") > 2, 60, "it connects anew")
        began = time.monotonic()
        return await process.stop(within_s=20), time.monotonic() - began

    try:
        ended = await asyncio.gather(*map(stop, started))
    finally:
        await coming_back
    for process, (code, took_s) in zip(started, ended, strict=True):
        assert code == 0, process.output()
        assert took_s <= GRACE_S + CLOSING_S, process.output()
