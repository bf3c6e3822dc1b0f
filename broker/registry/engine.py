"""The engine: how connections to PostgreSQL and SQLite are made, pooled and found to be dead."""

from pathlib import Path
from typing import Any

import asyncpg
from sqlalchemy import event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DisconnectionError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from broker.errors import RegistryError
from broker.registry import sqlite

#: How long to wait for a connection, and for one statement, in seconds.
CONNECT_S = 5.0
STATEMENT_S = 30.0
#: Connections of one process.
POOL = 10
#: Tables grow from nothing to millions of rows within minutes, and a connection keeps the plan that it made when
#: they were empty: one that reads all of a table, or of an index, for the sake of a few rows. All that is asked is
#: looked up by keys, for which there are indexes. Compiling a plan takes longer than any of them; and making one anew
#: for each execution, as the server likes to for arrays, takes a third of what a statement does.
_PLANS = (
    "SET enable_seqscan = off; SET enable_hashjoin = off; SET enable_mergejoin = off; SET jit = off; "
    "SET plan_cache_mode = force_generic_plan"
)
#: What libpq takes in a URL and asyncpg would hand to the server, which refuses it.
_FOR_LIBPQ_ONLY = ("connect_timeout", "channel_binding", "gssencmode")


def make_engine(url: str) -> AsyncEngine:
    """Make an engine for a `postgresql://`, `postgres://` or `sqlite:///` URL; connects to nothing yet.

    Raises RegistryError for any other URL.
    """
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        # The URL itself may hold a password, so the message does not repeat it.
        raise RegistryError(
            "The database's URL cannot be read; it begins with postgresql:// or sqlite:///."
        ) from None
    match parsed.drivername.partition("+")[0]:
        case "sqlite":
            return _sqlite(parsed)
        case "postgresql" | "postgres":
            return _postgresql(parsed)
        case other:
            raise RegistryError(
                f"There is no registry on {other}; the database's URL begins with postgresql:// or sqlite:///."
            )


def _postgresql(url: URL) -> AsyncEngine:
    # asyncpg reads the URL, so that sslmode, sslrootcert and several hosts mean what they do elsewhere.
    address = url.set(drivername="postgresql").difference_update_query(_FOR_LIBPQ_ONLY)
    dsn = address.render_as_string(hide_password=False)

    async def connect() -> asyncpg.Connection:
        connection = await asyncpg.connect(dsn, timeout=CONNECT_S, command_timeout=STATEMENT_S)
        try:
            await connection.execute(_PLANS)
        except BaseException:
            connection.terminate()
            raise
        return connection

    engine = create_async_engine(
        "postgresql+asyncpg://", async_creator=connect, pool_size=POOL, max_overflow=0, pool_timeout=CONNECT_S
    )
    event.listen(engine.sync_engine, "checkout", _refuse_closed)
    return engine


def _refuse_closed(connection: Any, _record: Any, _fairy: Any) -> None:
    # After a restart of the server every pooled connection is closed, and known to be: the pool makes a new
    # one. A ping would find little more than that, and cost round trips at each use.
    if connection.driver_connection.is_closed():
        raise DisconnectionError("the server closed this connection")


def _sqlite(url: URL) -> AsyncEngine:
    if not url.database:
        raise RegistryError("The database's URL names no file: write sqlite:/// and its path.")
    path = Path(url.database)
    path.parent.mkdir(parents=True, exist_ok=True)

    async def opened() -> sqlite.Connection:
        return await sqlite.connect(path, STATEMENT_S)

    return create_async_engine(url.set(drivername="sqlite+aiosqlite"), async_creator=opened, pool_size=POOL)
