"""Processes die or stand still, at random moments and again and again."""

import asyncio
import random

import pytest
from behaviours import delayed
from receivers import Receiver, opened
from stage import Stage, Worker

#: A random moment between two deaths, in seconds.
SOONEST_S, LATEST_S = 0.3, 2.0
#: A receiver that takes a while has deliveries in flight whenever a worker dies.
ANSWERS_AFTER_S = 0.03


async def kill_again_and_again(stage: Stage, victims: list[Worker], times: int, seed: int) -> None:
    """Kill one worker after another at random moments, and start each again."""
    drawn = random.Random(seed)
    for number in range(times):
        await asyncio.sleep(drawn.uniform(SOONEST_S, LATEST_S))
        victim = victims[number % len(victims)]
        with stage.strike(f"{victim.command} killed"):
            await victim.kill()
        await victim.start()


async def die(stage: Stage, fault: str, *, commands: set[str], times: int, most_repeated: int) -> None:
    """Kill workers of some kinds under load, and judge."""
    quick, slow, counting = Receiver("quick"), Receiver("slow"), Receiver("counting")
    slow.behaviour = delayed(ANSWERS_AFTER_S)
    async with opened(quick, slow, counting):
        workers = await stage.start_all("api", "api", "bot", "bot", "deliver", "deliver")
        await stage.channel(quick, slow)
        await stage.channel(counting, bot="demo", text="count to 3", says=3)
        load = stage.load()
        async with load.flowing():
            await stage.arrivals(load, 50)
            victims = [worker for worker in workers if worker.command in commands]
            await kill_again_and_again(stage, victims, times, seed=times)
            await stage.arrivals(load, 50)
        await stage.judge(fault, load, most_repeated=most_repeated)


@pytest.mark.long
async def test_where_nothing_breaks_everything_arrives_once(stage: Stage) -> None:
    quick, slow = Receiver("quick"), Receiver("slow")
    slow.behaviour = delayed(ANSWERS_AFTER_S)
    async with opened(quick, slow):
        await stage.start_all("api", "api", "bot", "bot", "deliver", "deliver")
        await stage.channel(quick, slow)
        load = stage.load()
        async with load.flowing():
            await asyncio.sleep(15.0)
        assert not load.refusals
        await stage.judge("nothing", load, most_repeated=0)


@pytest.mark.timeout(90)
async def test_kill_9_of_bot_and_delivery_workers_loses_nothing(stage: Stage) -> None:
    await die(
        stage,
        "SIGKILL of bot and delivery workers in turn",
        commands={"bot", "deliver"},
        times=4,
        most_repeated=stage.most_in_flight(4),
    )


@pytest.mark.long
@pytest.mark.timeout(300)
@pytest.mark.parametrize("command", ["api", "bot", "deliver"])
async def test_kill_9_ten_times_over_loses_nothing(stage: Stage, command: str) -> None:
    # A message that is posted again after its API process died is one message, and is answered once.
    most = 0 if command == "api" else stage.most_in_flight(10)
    await die(stage, f"SIGKILL of {command}, ten times", commands={command}, times=10, most_repeated=most)


@pytest.mark.long
@pytest.mark.timeout(300)
@pytest.mark.parametrize("command", ["bot", "deliver"])
async def test_a_worker_that_stands_still_for_30_s_and_comes_back_turns_nothing_round(
    stage: Stage, command: str
) -> None:
    quick, slow = Receiver("quick"), Receiver("slow")
    slow.behaviour = delayed(ANSWERS_AFTER_S)
    async with opened(quick, slow):
        workers = await stage.start_all("api", "bot", "deliver")
        # The one that was there first: it holds the queues, and the second stands by.
        (zombie,) = [worker for worker in workers if worker.command == command]
        await stage.start(command)
        await stage.channel(quick, slow)
        load = stage.load()
        async with load.flowing():
            await stage.arrivals(load, 50)
            with stage.strike(f"{command} frozen"):
                zombie.freeze()
                await asyncio.sleep(30.0)
                zombie.thaw()
            await stage.arrivals(load, 200)
        await stage.judge(
            f"SIGSTOP of a {command} worker for 30 s", load, most_repeated=stage.most_in_flight(2)
        )


@pytest.mark.long
@pytest.mark.timeout(120)
@pytest.mark.parametrize("command", ["bot", "deliver"])
async def test_a_stop_under_load_repeats_nothing(stage: Stage, command: str) -> None:
    quick, slow = Receiver("quick"), Receiver("slow")
    slow.behaviour = delayed(ANSWERS_AFTER_S)
    async with opened(quick, slow):
        workers = await stage.start_all("api", "bot", "bot", "deliver", "deliver")
        await stage.channel(quick, slow)
        load = stage.load()
        async with load.flowing():
            await stage.arrivals(load, 50)
            for worker in workers:
                if worker.command == command:
                    assert await worker.stop() == 0
                    await worker.start()
                    await stage.arrivals(load, 50)
        await stage.judge(f"SIGTERM of each {command} worker", load, most_repeated=0)
