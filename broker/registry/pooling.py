"""Poolers between this process and PostgreSQL: one that shares connections between transactions is refused."""

from collections.abc import Awaitable, Callable

import asyncpg

from broker.errors import SettingsError


async def check(connect: Callable[[], Awaitable[asyncpg.Connection]]) -> None:
    """Raise SettingsError where two connections of ours are the same one of the server's.

    Postbote sets its plans for each connection, and keeps its statements prepared there. PgBouncer's pool_mode
    `session` leaves them alone, `transaction` and `statement` do not.
    """
    first = await connect()
    try:
        process = await _server_process(first)
        if process == first.get_server_pid():
            # Connected to PostgreSQL itself: a pooler makes up a number of its own.
            return
        second = await connect()
        try:
            async with second.transaction():
                other = await _asked(second)
                again = await _server_process(first)
        finally:
            second.terminate()
        if other == process or again != process:
            raise SettingsError(
                "POSTBOTE_DATABASE_URL leads to a pooler that shares connections between transactions, and Postbote "
                "needs its own: set pool_mode = session in PgBouncer, or name PostgreSQL itself."
            )
    finally:
        first.terminate()


async def _server_process(connection: asyncpg.Connection) -> int:
    async with connection.transaction():
        return await _asked(connection)


async def _asked(connection: asyncpg.Connection) -> int:
    found: int = await connection.fetchval("SELECT pg_backend_pid()")
    return found
