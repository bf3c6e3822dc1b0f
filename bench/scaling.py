"""More workers for an endpoint that takes its time, and a webhook that comes back to what waits for it."""

import asyncio
import sys
import time
from contextlib import AsyncExitStack

import asyncpg
from backlog_rows import make_backlog
from servers.process import free_port

from bench.deliveries import WAIT_S, Measured, watch
from bench.deployment import deployed
from bench.processes import STOP_S, Child
from bench.receiver import read_arrivals
from bench.responses import Expected, make_responses, publish
from bench.servers import Servers

#: What the endpoint takes, in seconds, and the attempts that each worker may have in flight: so few that four
#: workers, servers and endpoint stay within two cores, which would be what is measured otherwise.
ANSWER_S, IN_FLIGHT = 0.05, 8


async def measure_workers(servers: Servers, workers: int, messages: int) -> Measured:
    """Measure how long so many workers take together for what waits, from the first arrival to the last."""
    async with AsyncExitStack() as stack:
        file, port = servers.folder / f"slow-{workers}.log", free_port()
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "bench.slow", str(port), str(ANSWER_S), str(file))
        )
        receiver = Child("slow", process)
        stack.push_async_callback(receiver.stop)
        deployment = await stack.enter_async_context(
            deployed(servers, environment={"POSTBOTE_MAX_IN_FLIGHT": str(IN_FLIGHT)})
        )
        made = await deployment.webhooks(f"http://127.0.0.1:{port}/", 1)
        expected = Expected(
            make_responses(deployment.channel, 800, messages // 800), made, deployment.channel
        )
        for _ in range(workers):
            await deployment.start("deliver")
        # All are there and have their share before there is anything to do.
        await asyncio.sleep(6.0)
        async with deployment.broker() as broker:
            await publish(broker, expected.responses, deployment.partitions)
        database = await asyncpg.connect(deployment.settings["POSTBOTE_DATABASE_URL"], timeout=10)
        stack.push_async_callback(database.close)
        deadline = time.monotonic() + WAIT_S
        while await database.fetchval("SELECT count(*) FROM deliveries") < len(expected.responses):
            if time.monotonic() > deadline:
                raise SystemExit(f"not all deliveries arrived within {WAIT_S:g} s")
            await asyncio.sleep(0.2)
        await deployment.stop()
        process.terminate()
        async with asyncio.timeout(STOP_S):
            await process.wait()
        arrivals = read_arrivals(file)
        expected.check(arrivals)
        begun, ended = arrivals[len(arrivals) // 5], arrivals[len(arrivals) * 7 // 10]
        return Measured((len(arrivals) // 2) / (ended.at - begun.at))


async def measure_drain(servers: Servers, rows: int, lanes: int) -> Measured:
    """Let a webhook be there again for all that waits for it, and measure until nothing does."""
    async with AsyncExitStack() as stack:
        receiver = stack.enter_context(servers.nginx())
        deployment = await stack.enter_async_context(deployed(servers))
        (webhook,) = await deployment.webhooks(receiver.url)
        database = await asyncpg.connect(deployment.settings["POSTBOTE_DATABASE_URL"], timeout=10)
        stack.push_async_callback(database.close)
        await make_backlog(database, deployment.channel.id, webhook.id, rows, lanes)
        await database.execute("VACUUM ANALYZE", timeout=600)
        waiting = await database.fetch("SELECT id, user_id, message_counter FROM deliveries")
        await servers.checkpoint()
        await deployment.start("deliver")
        found = await watch(deployment, receiver, rows)
        await deployment.stop()
        receiver.end()
        _check_order(
            {row["id"]: (row["user_id"], row["message_counter"]) for row in waiting},
            [arrival.webhook_id for arrival in receiver.arrivals()],
        )
        left = await database.fetchval("SELECT count(*) FROM deliveries WHERE status <> 'delivered'")
        if left or await database.fetchval("SELECT count(*) FROM backlog_lanes"):
            raise SystemExit(f"{left} deliveries still wait")
        return found


def _check_order(waiting: dict[str, tuple[str, int]], arrived: list[str]) -> None:
    counters: dict[str, int] = {}
    for each in arrived:
        user, counter = waiting.pop(each)
        if counter != counters.get(user, 0) + 1:
            raise SystemExit(f"out of order for {user}: {counter} after {counters.get(user, 0)}")
        counters[user] = counter
    if waiting:
        raise SystemExit(f"{len(waiting)} deliveries never arrived")
