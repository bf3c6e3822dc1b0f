"""One customer's broken endpoint, or a million deliveries that wait for one, are nobody else's problem."""

import asyncio
import statistics
import time

import asyncpg
import pytest
from backlog_rows import make_backlog
from behaviours import hangs
from latency import p99_of
from load import Load
from receivers import Receiver, opened
from servers.process import free_port
from stage import Stage, Worker

HEALTHY, HANGING = 45, 5
#: Deliveries a second to the healthy ones.
RATE = 250.0
#: For how long, in seconds, by the number of channels, until each user spoke twice at least; and before that.
PHASE_S, WARM_S = {1: 75.0, 10: 25.0}, 25.0
MOST_SLOWER = 1.5
ROWS = 1_000_000
LANES = 10_000
LEAST_THROUGHPUT = 0.9
MOST_MEMORY_MB, MOST_GROWTH_MB = 300.0, 100.0
MESSAGES, ROUNDS = 4_000, 6


@pytest.mark.long
@pytest.mark.timeout(400)
@pytest.mark.parametrize("channels", [1, 10], ids=["one channel", "ten channels"])
@pytest.mark.parametrize("prefetch", [50, 200])
async def test_hanging_endpoints_slow_nobody_else_down(
    stage: Stage, untroubled: Stage, channels: int, prefetch: int
) -> None:
    hanging = [Receiver(f"hanging-{number}") for number in range(HANGING)]
    for receiver in hanging:
        receiver.behaviour = hangs
    healthy = {
        id(on): [Receiver(f"healthy-{number}") for number in range(HEALTHY)] for on in (stage, untroubled)
    }
    async with opened(*hanging, *(receiver for receivers in healthy.values() for receiver in receivers)):
        for on in (stage, untroubled):
            # The default, and as much less as this load is less than what a deployment may have.
            on.environment["POSTBOTE_PREFETCH"] = str(prefetch)
            await on.start_all("api", "bot", "deliver")
            made = [await on.channel() for _ in range(channels)]
            for number, receiver in enumerate(healthy[id(on)]):
                await on.webhook(made[number % channels], receiver)

        async def measure(on: Stage, phase_s: float) -> tuple[Load, float]:
            # Deliveries a second are alike, however the webhooks are spread. Users speak in turn: were five to speak
            # at once, with 45 webhooks each, the 99th percentile would tell of them and of nothing else.
            load = on.load(rate=RATE * channels / HEALTHY, in_turn=True)
            async with load.flowing():
                await asyncio.sleep(phase_s)
            unbroken = [subscriber for subscriber in on.subscribers if not subscriber.broken]
            assert await on.all_there(load, unbroken, 60.0)
            return load, await p99_of(on, load, healthy[id(on)])

        # Connections are opened and caches filled before anything is measured.
        await asyncio.gather(measure(stage, WARM_S), measure(untroubled, WARM_S))
        for number, receiver in enumerate(hanging):
            await stage.webhook(stage.channels[number % channels], receiver, broken=True)
        # Side by side at the same time: whatever else the machine does slows both.
        (load, with_them), (_, without) = await asyncio.gather(
            measure(stage, PHASE_S[channels]), measure(untroubled, PHASE_S[channels])
        )
        await stage.judge(
            f"5 of 50 webhooks hang, on {channels} channel{'s' if channels > 1 else ''}, prefetch {prefetch}",
            load,
            most_repeated=0,
            judged=lambda subscriber: not subscriber.broken,
            notes={
                "p99 with them, ms": with_them * 1000,
                "p99 without, ms": without * 1000,
                "ratio": with_them / without,
            },
        )
        assert sum(receiver.requests for receiver in hanging) > 5
        assert with_them <= MOST_SLOWER * without


@pytest.mark.long
@pytest.mark.timeout(600)
async def test_a_million_waiting_deliveries_of_one_webhook_slow_nobody_down(stage: Stage) -> None:
    quick = Receiver("quick")
    async with opened(quick):
        await stage.start_all("api", "bot")
        deliver = await stage.start("deliver")
        await stage.channel(quick)
        dead = await stage.api.channel()
        made = await stage.api.admin(
            "POST", f"/v1/channels/{dead[0]}/webhooks", {"url": f"http://127.0.0.1:{free_port()}/"}
        )
        without: list[float] = []
        with_them: list[float] = []
        memory: dict[bool, float] = {}
        load = stage.load(rate=2_000.0)
        for round_ in range(ROUNDS):
            # Side by side, in turn: the noise of the machine is the same for both.
            waiting = round_ % 2 == 1
            await set_backlog(stage, dead[0], str(made["id"]), ROWS if waiting else 0)
            load, rate, held = await drain(stage, deliver, quick)
            (with_them if waiting else without).append(rate)
            memory[waiting] = max(memory.get(waiting, 0.0), held)
            if waiting:
                statuses = await stage.statuses()
                assert sum(n for name, n in statuses.items() if "pending" in name) >= ROWS * 0.99, statuses
        ratio = statistics.median(with_them) / statistics.median(without)
        await stage.judge(
            "a million rows of backlog for one dead webhook",
            load,
            most_repeated=0,
            notes={
                "deliveries/s without": statistics.median(without),
                "deliveries/s with": statistics.median(with_them),
                "ratio": ratio,
                "memory without, MB": memory[False],
                "memory with, MB": memory[True],
            },
        )
        assert ratio >= LEAST_THROUGHPUT, f"with {with_them}, without {without}"
        assert memory[True] < MOST_MEMORY_MB
        assert memory[True] - memory[False] < MOST_GROWTH_MB


async def set_backlog(stage: Stage, channel_id: str, webhook_id: str, rows: int) -> None:
    """Empty the log and the backlog, and fill in so many rows of one webhook."""
    connection = await asyncpg.connect(stage.environment["POSTBOTE_DATABASE_URL"], timeout=10)
    try:
        await connection.execute("TRUNCATE deliveries, attempts, backlog_lanes", timeout=60)
        if rows:
            await make_backlog(connection, channel_id, webhook_id, rows, LANES)
        await connection.execute("VACUUM ANALYZE deliveries", timeout=120)
    finally:
        await connection.close(timeout=10)


async def answered(stage: Stage, load: Load) -> None:
    """Wait until the responses to all that was accepted are on the queues."""
    connection = await asyncpg.connect(stage.environment["POSTBOTE_DATABASE_URL"], timeout=10)
    try:
        async with asyncio.timeout(60.0):
            asked = [message.id for messages in load.messages.values() for message in messages]
            while await connection.fetchval(  # noqa: ASYNC110 - a table sends no event
                "SELECT count(*) FROM turns WHERE published AND message_id = ANY($1)", asked
            ) < len(asked):
                await asyncio.sleep(0.2)
    finally:
        await connection.close(timeout=10)


async def drain(stage: Stage, deliver: Worker, receiver: Receiver) -> tuple[Load, float, float]:
    """Let responses pile up on the queues, and a fresh worker deliver them; returns the load, a rate, memory."""
    assert await deliver.stop() == 0
    load = stage.load(rate=2_000.0)
    async with load.flowing():
        assert await stage.wait_for(lambda: load.accepted() >= MESSAGES, 60.0), load.accepted()
    wanted = load.accepted()
    await answered(stage, load)
    before = len(receiver.arrivals)
    await deliver.start()
    peak = 0.0

    def all_there() -> bool:
        nonlocal peak
        peak = max(peak, deliver.memory_mb)
        return len(receiver.arrivals) - before >= wanted

    assert await stage.wait_for(all_there, 60.0), f"{len(receiver.arrivals) - before} of {wanted}"
    moments = [arrival.at for arrival in receiver.arrivals[before:]]
    # The drainer has its look at the backlog while the worker is at work, and after it.
    await asyncio.sleep(max(0.0, 5.0 - (time.monotonic() - moments[0])))
    return load, len(moments) / (moments[-1] - moments[0]), max(peak, deliver.memory_mb)
