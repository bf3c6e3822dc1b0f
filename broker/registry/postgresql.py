"""Connections to PostgreSQL: how they are made, what plans they may use, and when they are found to be dead."""

from collections.abc import Awaitable, Callable
from typing import Any

import asyncpg
from sqlalchemy import event
from sqlalchemy.engine import URL
from sqlalchemy.exc import DisconnectionError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from broker.registry.direct import Direct

#: Tables grow from nothing to millions of rows within minutes, and a connection keeps the plan that it made when
#: they were empty: one that reads all of a table, or of an index, for the sake of a few rows. All that is asked is
#: looked up by keys, for which there are indexes. Compiling a plan takes longer than any of them.
_PLANS = "SET enable_seqscan = off; SET enable_hashjoin = off; SET enable_mergejoin = off; SET jit = off"
#: For what every message asks a plan is made once: the server likes to make one anew for each array, which takes a
#: third of what such a statement does. Not for all else, some of which needs to know how many lanes it is asked for.
_KEPT_PLANS = f"{_PLANS}; SET plan_cache_mode = force_generic_plan"
#: The server gives up a statement this much later than we do, in seconds: one whose cancellation did not reach it,
#: or whose process is gone, must not take place at some later time. Nor may a transaction of such a process keep its
#: locks.
_SERVER_LATER_S = 2.0
#: What libpq takes in a URL and asyncpg would hand to the server, which refuses it.
_FOR_LIBPQ_ONLY = ("connect_timeout", "channel_binding", "gssencmode")


def make_engine(url: URL, *, connect_s: float, statement_s: float, pool: int) -> AsyncEngine:
    """Make an engine of at most `pool` connections; the times to connect and for a statement are in seconds."""
    engine = create_async_engine(
        "postgresql+asyncpg://",
        async_creator=_connecting(url, _PLANS, connect_s, statement_s),
        pool_size=pool,
        max_overflow=0,
        pool_timeout=connect_s,
    )
    event.listen(engine.sync_engine, "checkout", _refuse_closed)
    return engine


def make_direct(url: URL, *, connect_s: float, statement_s: float, pool: int) -> Direct:
    """Make the way past SQLAlchemy, of at most `pool` connections; times as for `make_engine`."""
    return Direct(_connecting(url, _KEPT_PLANS, connect_s, statement_s), wait_s=connect_s, most=pool)


def _connecting(
    url: URL, plans: str, connect_s: float, statement_s: float
) -> Callable[[], Awaitable[asyncpg.Connection]]:
    dsn = _dsn(url)
    longest_ms = int((statement_s + _SERVER_LATER_S) * 1000)
    ends = f"SET statement_timeout = {longest_ms}; SET idle_in_transaction_session_timeout = {longest_ms}"

    async def connect() -> asyncpg.Connection:
        connection = await asyncpg.connect(dsn, timeout=connect_s, command_timeout=statement_s)
        try:
            await connection.execute(f"{plans}; {ends}")
        except BaseException:
            connection.terminate()
            raise
        return connection

    return connect


def _dsn(url: URL) -> str:
    # asyncpg reads the URL, so that sslmode, sslrootcert and several hosts mean what they do elsewhere.
    address = url.set(drivername="postgresql").difference_update_query(_FOR_LIBPQ_ONLY)
    return address.render_as_string(hide_password=False)


def _refuse_closed(connection: Any, _record: Any, _fairy: Any) -> None:
    # After a restart of the server every pooled connection is closed, and known to be: the pool makes a new
    # one. A ping would find little more than that, and cost round trips at each use.
    if connection.driver_connection.is_closed():
        raise DisconnectionError("the server closed this connection")
