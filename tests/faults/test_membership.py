"""Workers come and go, and the partitions move between them."""

import asyncio
import random
import time

import pytest
from behaviours import delayed
from broker_place import served_by
from receivers import Receiver, opened
from servers.rabbitmq_program import ProgramNode
from stage import Stage, Worker, by_hand

RESTLESS_S = 60.0
SHARE_S = 2.0
MOST_OF_A_KIND = 4


async def come_and_go(stage: Stage, workers: list[Worker], *, kill: bool) -> int:
    """Add and remove workers every few seconds for a minute; returns how many were killed."""
    drawn = random.Random(9)
    killed = 0
    ends = time.monotonic() + RESTLESS_S
    while time.monotonic() < ends:
        await asyncio.sleep(drawn.uniform(1.0, 3.0))
        command = drawn.choice(("bot", "deliver"))
        running = [worker for worker in workers if worker.command == command and worker.running]
        if len(running) == 1 or (len(running) < MOST_OF_A_KIND and drawn.random() < 0.5):
            workers.append(await stage.start(command))
            continue
        leaving = drawn.choice(running)
        with stage.strike(f"{command} leaves"):
            if kill and drawn.random() < 0.5:
                killed += 1
                await leaving.kill()
            else:
                assert await leaving.stop() == 0, leaving.output()
    return killed


@pytest.mark.long
@pytest.mark.timeout(300)
@pytest.mark.parametrize("kill", [False, True], ids=["stopped", "stopped or killed"])
async def test_workers_are_added_and_removed_every_few_seconds(stage: Stage, kill: bool) -> None:
    quick, slow = Receiver("quick"), Receiver("slow")
    slow.behaviour = delayed(0.03)
    async with opened(quick, slow):
        workers = await stage.start_all("api", "bot", "bot", "deliver", "deliver")
        await stage.channel(quick, slow)
        load = stage.load()
        async with load.flowing():
            await stage.arrivals(load, 50)
            killed = await come_and_go(stage, workers[1:], kill=kill)
            await stage.arrivals(load, 50)
        how = "added, and stopped or killed" if kill else "added and stopped"
        await stage.judge(
            f"workers {how} every few seconds for a minute",
            load,
            most_repeated=stage.most_in_flight(killed),
            notes={"processes": len(stage.workers), "killed": killed},
        )


@pytest.mark.long
@pytest.mark.timeout(120)
@pytest.mark.parametrize(("command", "queues"), [("bot", "inbound"), ("deliver", "outbound")])
async def test_a_joining_worker_gets_its_share(
    stage: Stage, node: ProgramNode, vhost: str, command: str, queues: str
) -> None:
    one = Receiver("one")
    async with opened(one):
        await stage.start_all("api", "bot", "deliver")
        await stage.channel(one)
        load = stage.load()
        async with load.flowing():
            await stage.arrivals(load, 50)
            joining = await stage.start(command)
            await asyncio.sleep(SHARE_S)
            served = await by_hand(lambda: served_by(node, vhost))
            ports = joining.ports
            share = [queue for queue, port in served.items() if queues in queue and port in ports]
            await stage.arrivals(load, 100)
        await stage.judge(
            f"a {command} worker joins", load, most_repeated=0, notes={"partitions it got": len(share)}
        )
        assert share, f"it serves none of the {queues} partitions after {SHARE_S:g} s: {served}"


@pytest.mark.long
@pytest.mark.timeout(120)
@pytest.mark.parametrize("command", ["bot", "deliver"])
async def test_the_partitions_of_a_killed_worker_are_served_again_within_10_s(
    stage: Stage, command: str
) -> None:
    one = Receiver("one")
    async with opened(one):
        await stage.start_all("api", "bot", "deliver")
        for _ in range(2):
            await stage.start(command)
        await stage.channel(one)
        load = stage.load()
        async with load.flowing():
            await stage.arrivals(load, 50)
            for victim in [worker for worker in stage.workers if worker.command == command][:2]:
                with stage.strike(f"{command} killed"):
                    await victim.kill()
                await asyncio.sleep(10.0)
            await stage.arrivals(load, 50)
        verdict = await stage.judge(
            f"two of three {command} workers killed", load, most_repeated=stage.most_in_flight(2)
        )
        assert verdict.recovery_s < 10.0
