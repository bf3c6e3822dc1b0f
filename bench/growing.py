"""What a message costs as the work grows: webhooks, conversations, partitions, backlog, log."""

import statistics
from collections.abc import Awaitable, Callable, Sequence
from functools import partial

import asyncpg
from backlog_rows import make_backlog
from servers.process import free_port

from bench.channels import measure_channels
from bench.deliveries import Measured, measure_deliveries
from bench.deployment import Deployment
from bench.servers import Servers
from broker.registry.channels import Channels

LOG_ROWS_A_PIECE = 500_000


def cost(measured: Measured) -> float:
    """Return the CPU of worker, RabbitMQ and PostgreSQL for a message, in microseconds."""
    return sum(value for name, value in measured.cpu_us.items() if name != "nginx")


async def with_backlog(deployment: Deployment, rows: int) -> None:
    """Put so many deliveries of one dead webhook into the backlog, of a channel of its own."""
    if not rows:
        return
    channel, _ = await Channels(deployment.database).create("dead", {"type": "echo"})
    (webhook,) = await deployment.webhooks(f"http://127.0.0.1:{free_port()}/", channel=channel)
    connection = await asyncpg.connect(deployment.settings["POSTBOTE_DATABASE_URL"], timeout=10)
    try:
        await make_backlog(connection, channel.id, webhook.id, rows, max(1, rows // 100))
        await connection.execute("VACUUM ANALYZE", timeout=600)
    finally:
        await connection.close(timeout=10)


async def with_log(deployment: Deployment, rows: int) -> None:
    """Put so many delivered deliveries into the log."""
    connection = await asyncpg.connect(deployment.settings["POSTBOTE_DATABASE_URL"], timeout=10)
    try:
        for start in range(0, rows, LOG_ROWS_A_PIECE):
            await connection.execute(
                """
                INSERT INTO deliveries (id, webhook_id, channel_id, conversation_key, user_id, response_id,
                                        message_counter, status, attempt_count, status_code, duration_ms,
                                        created_at, finished_at)
                SELECT gen_random_uuid()::text, 'wh_old', 'ch_old', 'ch_old/' || n % 10000, 'user-' || n % 10000,
                       gen_random_uuid()::text, n, 'delivered', 1, 200, 3,
                       now() - (n || ' milliseconds')::interval, now() - (n || ' milliseconds')::interval
                FROM generate_series($1::int, $2::int - 1) AS n
                """,
                start,
                min(rows, start + LOG_ROWS_A_PIECE),
                timeout=600,
            )
        await connection.execute("VACUUM ANALYZE", timeout=600)
    finally:
        await connection.close(timeout=10)


async def measure_growth(servers: Servers, messages: int, *, full: bool) -> dict[str, dict[int, Measured]]:
    """Measure small and large, for each of the ways in which the work grows."""
    measure = partial(measure_deliveries, servers)
    ways: dict[str, tuple[Sequence[int], Callable[[int], Awaitable[Measured]]]] = {
        "conversations": (
            (100, 100_000 if full else messages),
            lambda users: measure(messages=max(messages, users), users=users),
        ),
        # So many that each webhook is met before anything counts, and several times after.
        "webhooks": (
            (10, 10_000 if full else 1_000),
            lambda number: measure(messages=max(messages, 5 * number), users=100, channels=number),
        ),
        "channels, API and bot worker": (
            (1, 1_000, 10_000) if full else (1, 1_000),
            lambda number: measure_channels(servers, 10, number),
        ),
        "partitions": (
            (1, 16, 64),
            # Many more than the prefetch of all: what is taken before anything counts costs RabbitMQ nothing later.
            lambda number: measure(messages=2 * messages, users=500, partitions=number),
        ),
        "rows of backlog": (
            (0, 1_000_000 if full else 100_000),
            lambda rows: measure(messages=messages, users=500, prepare=partial(with_backlog, rows=rows)),
        ),
        "rows of log": (
            (0, 10_000_000 if full else 500_000),
            lambda rows: measure(messages=messages, users=500, prepare=partial(with_log, rows=rows)),
        ),
    }
    # What has to be prepared for long is measured once; of partitions nothing is, and their difference is small.
    turns = {"partitions": 2, **(dict.fromkeys(("rows of backlog", "rows of log"), 0) if full else {})}
    return {name: await _compare(sizes, at, turns.get(name, 1)) for name, (sizes, at) in ways.items()}


async def _compare(
    sizes: Sequence[int], at: Callable[[int], Awaitable[Measured]], turns: int
) -> dict[int, Measured]:
    # There and back, so many turns, or only the smallest twice: the machine is another from one minute to the next.
    found: dict[int, list[Measured]] = {size: [] for size in sizes}
    order = (*sizes, *reversed(sizes)) * turns or (*sizes, sizes[0])
    for size in order:
        found[size].append(await at(size))
    return {size: _mean(each) for size, each in found.items()}


def _mean(each: Sequence[Measured]) -> Measured:
    return Measured(
        statistics.mean(one.rate for one in each),
        {name: statistics.mean(one.cpu_us[name] for one in each) for name in each[0].cpu_us},
        max(one.memory_mb for one in each),
    )
