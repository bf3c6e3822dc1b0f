"""PostgreSQL restarts, is gone for a while, or cuts connections."""

import asyncio

import asyncpg
import pytest
from database_place import read_only
from receivers import Receiver, opened
from servers.postgres_program import PostgresProgram
from stage import Stage, by_hand

GONE_S = 30.0


async def test_the_database_is_gone_for_some_seconds(stage: Stage, fault_postgres: PostgresProgram) -> None:
    await gone(stage, fault_postgres, 4.0)


@pytest.mark.long
@pytest.mark.timeout(300)
async def test_the_database_is_gone_for_30_s(stage: Stage, fault_postgres: PostgresProgram) -> None:
    await gone(stage, fault_postgres, GONE_S)


async def gone(stage: Stage, server: PostgresProgram, seconds: float) -> None:
    one, two = Receiver("one"), Receiver("two")
    async with opened(one, two):
        await stage.start_all("api", "bot", "deliver")
        await stage.channel(one, two)
        load = stage.load()
        async with load.flowing():
            await stage.arrivals(load, 50)
            with stage.strike("database gone"):
                await by_hand(server.stop)
                await asyncio.sleep(seconds)
                await by_hand(server.start)
            await stage.arrivals(load, 50)
        slowest = max((refusal.lasted_s for refusal in load.refusals), default=0.0)
        # Neither a process nor its connection to RabbitMQ died.
        await stage.judge(
            f"PostgreSQL gone for {seconds:g} s",
            load,
            most_repeated=0,
            notes={"slowest refusal in s": slowest, "refusals": len(load.refusals)},
        )
        load.refused_promptly()


async def test_the_database_takes_no_writes_for_some_seconds(
    stage: Stage, fault_postgres: PostgresProgram
) -> None:
    one, two = Receiver("one"), Receiver("two")
    async with opened(one, two):
        workers = await stage.start_all("api", "bot", "deliver")
        await stage.channel(one, two)
        load = stage.load()

        async def readiness() -> int:
            async with stage.session.get(f"{stage.bases[0]}/readyz") as answer:
                return answer.status

        async with load.flowing():
            await stage.arrivals(load, 50)
            with stage.strike("no writes"):
                async with read_only(fault_postgres):
                    await asyncio.sleep(4.0)
                    ready = await readiness()
            await stage.arrivals(load, 50)
        written = {worker.command: len(worker.output()) for worker in workers}
        crashed = sum(worker.output().count("session.failed") for worker in workers)
        await stage.judge(
            "PostgreSQL takes no writes for 4 s",
            load,
            most_repeated=0,
            notes={
                "refusals": len(load.refusals),
                **{f"log of {name}": size for name, size in written.items()},
            },
        )
        load.refused_promptly()
        assert (ready, await readiness()) == (503, 200)
        assert crashed == 0, "a session ended for what is no fault of its messages"
        # A line for each conversation that waits, and for each that goes on.
        assert max(written.values()) < 100_000, written


@pytest.mark.long
@pytest.mark.timeout(300)
async def test_healthy_webhooks_are_served_while_the_database_is_gone(
    stage: Stage, fault_postgres: PostgresProgram
) -> None:
    one, failing = Receiver("one"), Receiver("failing")
    async with opened(one, failing):
        _, _, deliver = await stage.start_all("api", "bot", "deliver")
        channel = await stage.channel(one)
        await stage.webhook(channel, failing, broken=True)
        await failing.close()
        load = stage.load()
        async with load.flowing():
            await stage.arrivals(load, 50)
            # Responses on the queues, which need no bot and no API any more.
            deliver.freeze()
            before = load.accepted()
            assert await stage.wait_for(lambda: load.accepted() > before + 600, 30.0)
            with stage.strike("database gone"):
                await by_hand(fault_postgres.stop)
                arrived = one.distinct
                deliver.thaw()
                # All that fits into memory beside the failing webhook's, which wait for the database.
                served = await stage.wait_for(lambda: one.distinct >= arrived + 100, 10.0)
                await asyncio.sleep(5.0)
                without = one.distinct - arrived
                await by_hand(fault_postgres.start)
            await failing.open()
            await stage.arrivals(load, 50)
        verdict = await stage.judge(
            "PostgreSQL gone while a webhook fails",
            load,
            most_repeated=0,
            within_s=150.0,
            notes={"healthy deliveries without the database": without},
        )
        assert served, f"only {without} deliveries without the database; {verdict.notes}"


@pytest.mark.long
@pytest.mark.timeout(300)
async def test_the_database_crashes_three_times(stage: Stage, fault_postgres: PostgresProgram) -> None:
    one, two = Receiver("one"), Receiver("two")
    async with opened(one, two):
        await stage.start_all("api", "bot", "bot", "deliver", "deliver")
        await stage.channel(one, two)
        load = stage.load()
        async with load.flowing():
            for _ in range(3):
                await stage.arrivals(load, 50)
                with stage.strike("database crashed"):
                    await by_hand(fault_postgres.kill)
                    await by_hand(fault_postgres.start)
            await stage.arrivals(load, 50)
        await stage.judge("PostgreSQL crashes and recovers, three times", load, most_repeated=0)


@pytest.mark.long
@pytest.mark.timeout(300)
async def test_connections_to_the_database_are_cut_again_and_again(
    stage: Stage, fault_postgres: PostgresProgram
) -> None:
    one, two = Receiver("one"), Receiver("two")
    async with opened(one, two):
        await stage.start_all("api", "bot", "bot", "deliver", "deliver")
        await stage.channel(one, two)
        load = stage.load()
        async with load.flowing():
            await stage.arrivals(load, 50)
            admin = await asyncpg.connect(fault_postgres.url, timeout=10)
            try:
                cut = 0
                for _ in range(20):
                    with stage.strike("connections cut"):
                        cut += await admin.fetchval(
                            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity "
                            "WHERE pid <> pg_backend_pid() AND datname IS NOT NULL"
                        )
                    await asyncio.sleep(0.5)
            finally:
                await admin.close(timeout=10)
            assert cut > 20
            await stage.arrivals(load, 50)
        await stage.judge(
            "all connections to PostgreSQL cut, twenty times",
            load,
            most_repeated=0,
            notes={"connections cut": cut},
        )
