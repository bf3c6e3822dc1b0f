"""Databases of a test's own on a server that the test may break: no connection is kept meanwhile."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from secrets import token_hex

import asyncpg
from servers.postgres import database_url
from servers.postgres_program import PostgresProgram


async def command(server: PostgresProgram, sql: str) -> None:
    """Run one statement as the administrator."""
    connection = await asyncpg.connect(server.url, timeout=10)
    try:
        await connection.execute(sql, timeout=60)
    finally:
        await connection.close(timeout=10)


@asynccontextmanager
async def database_of_its_own(server: PostgresProgram, template: str) -> AsyncIterator[str]:
    """Copy a template, and drop the copy at the end; starts the server where a test left it stopped."""
    if not server.running:
        server.start()
    name = f"postbote_{token_hex(4)}"
    await command(server, f"CREATE DATABASE {name} TEMPLATE {template}")
    try:
        yield database_url(server.url, name)
    finally:
        if not server.running:
            server.start()
        await command(server, f"DROP DATABASE {name} WITH (FORCE)")


@asynccontextmanager
async def read_only(server: PostgresProgram) -> AsyncIterator[None]:
    """Have the server take no writes, as a standby takes none after a failover."""
    await command(server, "ALTER SYSTEM SET default_transaction_read_only = on")
    await command(server, "SELECT pg_reload_conf()")
    try:
        yield
    finally:
        await command(server, "ALTER SYSTEM RESET default_transaction_read_only")
        await command(server, "SELECT pg_reload_conf()")
