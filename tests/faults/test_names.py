"""Names whose name server is silent are nobody else's problem, and do not part us from our own servers."""

import asyncio
import time
from pathlib import Path

import pytest
from latency import p99_of
from load import Load
from names import by_name, name_server
from proxy import proxied
from receivers import Receiver, opened
from stage import Stage

HEALTHY, SILENT = 5, 8
ROW_HEALTHY, ROW_SILENT = 40, 10
RATE = 6.0
WARM_S, PHASE_S = 15.0, 60.0
MOST_SLOWER = 1.5
#: A delivery that waited for one lookup of somebody else's would take five seconds at least.
LONGEST_S = 3.0
#: How long it may take until messages flow again after a cut.
BACK_S = 10.0


async def add_silent(stage: Stage, number: int) -> Receiver:
    """Register a webhook whose name server is silent, each with a zone of its own."""
    receiver = Receiver(f"silent-{number}")
    url = f"http://hook.silent-{number}.test:8000/hook"
    await stage.webhook(stage.channels[0], receiver, broken=True, url=url)
    return receiver


async def test_webhooks_whose_name_servers_are_silent_hold_up_nobody_else(
    stage: Stage, tmp_path: Path
) -> None:
    healthy = [Receiver(f"healthy-{number}") for number in range(HEALTHY)]
    async with name_server(tmp_path) as (names, before), opened(*healthy):
        stage.before = before
        await stage.start_all("api", "bot", "deliver")
        channel = await stage.channel()
        silent = [await add_silent(stage, number) for number in range(SILENT)]
        # Some by a plain address, the others by a name that has to be looked up.
        for number, receiver in enumerate(healthy):
            host = "127.0.0.1" if number < 2 else f"healthy-{number}.test"
            await stage.webhook(channel, receiver, url=by_name(receiver.url, host))
        load = stage.load(users=40, rate=20.0)
        async with load.flowing():
            await asyncio.sleep(3.0)
        unbroken = [subscriber for subscriber in stage.subscribers if not subscriber.broken]
        await stage.all_there(load, unbroken, 30.0)
        waits = {receiver.name: await p99_of(stage, load, [receiver]) for receiver in healthy}
        await stage.judge(
            f"{SILENT} webhooks with silent name servers",
            load,
            judged=lambda subscriber: not subscriber.broken,
            notes={"longest p99, ms": max(waits.values()) * 1000},
        )
        assert max(waits.values()) < LONGEST_S, waits
        assert any("silent" in name for name in names.asked)
        assert not any(receiver.requests for receiver in silent)


async def test_with_a_silent_name_server_a_lost_connection_to_our_own_servers_is_made_again(
    stage: Stage, tmp_path: Path
) -> None:
    receiver = Receiver("by-name")
    broker, database = "POSTBOTE_AMQP_URL", "POSTBOTE_DATABASE_URL"
    async with (
        name_server(tmp_path) as (names, before),
        proxied(stage.environment[broker]) as to_broker,
        proxied(stage.environment[database]) as to_database,
        opened(receiver),
    ):
        stage.before = before
        direct = stage.environment[database]
        stage.environment[broker] = by_name(to_broker.url(stage.environment[broker]), "broker.test")
        stage.environment[database] = by_name(to_database.url(direct), "database.test")
        await stage.start_all("api", "bot", "deliver")
        stage.environment[database] = direct
        channel = await stage.channel()
        await stage.webhook(channel, receiver, url=by_name(receiver.url, "hook.test"))
        load = stage.load(users=20, rate=40.0)
        async with load.flowing():
            await stage.arrivals(load, 20)
            names.silent_about = lambda name: True
            with stage.strike("names and connections gone"):
                to_broker.cut()
                to_database.cut()
                began = time.monotonic()
                await stage.arrivals(load, 40, 60.0)
                back_s = time.monotonic() - began
        await stage.judge("silent name server, connections cut", load, most_repeated=stage.most_in_flight(2))
        assert back_s < BACK_S


@pytest.mark.long
@pytest.mark.timeout(400)
async def test_a_fifth_of_all_webhooks_with_silent_name_servers_slow_nobody_down(
    stage: Stage, untroubled: Stage, tmp_path: Path
) -> None:
    healthy = {
        id(on): [Receiver(f"healthy-{number}") for number in range(ROW_HEALTHY)] for on in (stage, untroubled)
    }
    async with (
        name_server(tmp_path) as (names, before),
        opened(*(receiver for receivers in healthy.values() for receiver in receivers)),
    ):
        for on in (stage, untroubled):
            on.before = before
            await on.start_all("api", "bot", "deliver")
            channel = await on.channel()
            for number, receiver in enumerate(healthy[id(on)]):
                await on.webhook(channel, receiver, url=by_name(receiver.url, f"healthy-{number}.test"))

        async def measure(on: Stage, phase_s: float) -> tuple[Load, float]:
            load = on.load(rate=RATE, in_turn=True)
            async with load.flowing():
                await asyncio.sleep(phase_s)
            unbroken = [subscriber for subscriber in on.subscribers if not subscriber.broken]
            assert await on.all_there(load, unbroken, 60.0)
            return load, await p99_of(on, load, healthy[id(on)])

        await asyncio.gather(measure(stage, WARM_S), measure(untroubled, WARM_S))
        for number in range(ROW_SILENT):
            await add_silent(stage, number)
        (load, with_them), (_, without) = await asyncio.gather(
            measure(stage, PHASE_S), measure(untroubled, PHASE_S)
        )
        await stage.judge(
            f"{ROW_SILENT} of {ROW_HEALTHY + ROW_SILENT} webhooks have silent name servers",
            load,
            judged=lambda subscriber: not subscriber.broken,
            notes={
                "p99 with them, ms": with_them * 1000,
                "p99 without, ms": without * 1000,
                "ratio": with_them / without,
            },
        )
        assert any("silent" in name for name in names.asked)
        assert with_them <= MOST_SLOWER * without
