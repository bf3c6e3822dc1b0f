"""What a message costs as the work grows: webhooks, conversations, partitions, backlog, log."""

from functools import partial

import asyncpg
from backlog_rows import make_backlog

from bench.deliveries import Measured, measure_deliveries
from bench.deployment import Deployment
from bench.servers import Servers, free_port
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
    found: dict[str, dict[int, Measured]] = {}
    found["conversations"] = {
        users: await measure_deliveries(servers, messages=max(messages, users), users=users)
        for users in (100, 100_000 if full else messages)
    }
    found["webhooks"] = {
        # So many that each webhook is met before anything counts, and several times after.
        number: await measure_deliveries(
            servers, messages=max(messages, 5 * number), users=100, channels=number
        )
        for number in (10, 10_000 if full else 1_000)
    }
    found["partitions"] = {
        number: await measure_deliveries(servers, messages=messages, users=500, partitions=number)
        for number in (1, 16, 64)
    }
    found["rows of backlog"] = {
        rows: await measure_deliveries(
            servers, messages=messages, users=500, prepare=partial(with_backlog, rows=rows)
        )
        for rows in (0, 1_000_000 if full else 100_000)
    }
    found["rows of log"] = {
        rows: await measure_deliveries(
            servers, messages=messages, users=500, prepare=partial(with_log, rows=rows)
        )
        for rows in (0, 10_000_000 if full else 500_000)
    }
    return found
