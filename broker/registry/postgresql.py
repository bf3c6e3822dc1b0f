"""Connections to PostgreSQL: how they are made, what plans they may use, and when they are found to be dead."""

import os
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

import asyncpg
from sqlalchemy import event
from sqlalchemy.exc import DisconnectionError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from broker.registry.direct import Direct
from broker.server_urls import hosts_apart

#: Tables grow from nothing to millions of rows within minutes, and a connection keeps the plan that it made when
#: they were empty: one that reads all of a table, or of an index, for the sake of a few rows. All that is asked is
#: looked up by keys, for which there are indexes. Compiling a plan takes longer than any of them.
_PLANS = "SET enable_seqscan = off; SET enable_hashjoin = off; SET enable_mergejoin = off; SET jit = off"
#: Where a plan is made anew each time, it may lean on what it is given: that a status is `pending`, for which there
#: is an index on a part of the rows.
_FRESH_PLANS = f"{_PLANS}; SET plan_cache_mode = force_custom_plan"
#: For what every message asks a plan is made once: the server likes to make one anew for each array, which takes a
#: third of what such a statement does. Not for all else, some of which needs to know how many lanes it is asked for.
_KEPT_PLANS = f"{_PLANS}; SET plan_cache_mode = force_generic_plan"
#: The server gives up a statement this much later than we do, in seconds: one whose cancellation did not reach it,
#: or whose process is gone, must not take place at some later time. Nor may a transaction of such a process keep its
#: locks.
_SERVER_LATER_S = 2.0
#: What libpq takes in a URL and asyncpg would hand to the server, which refuses it.
_FOR_LIBPQ_ONLY = (
    "channel_binding",
    "connect_timeout",
    "fallback_application_name",
    "gssencmode",
    "keepalives",
    "keepalives_count",
    "keepalives_idle",
    "keepalives_interval",
    "load_balance_hosts",
    "sslsni",
    "tcp_user_timeout",
)


def make_engine(url: str, *, connect_s: float, statement_s: float, pool: int) -> AsyncEngine:
    """Make an engine of at most `pool` connections; the times to connect and for a statement are in seconds."""
    engine = create_async_engine(
        "postgresql+asyncpg://",
        async_creator=_connecting(url, _FRESH_PLANS, connect_s, statement_s),
        pool_size=pool,
        max_overflow=0,
        pool_timeout=connect_s,
    )
    event.listen(engine.sync_engine, "checkout", _refuse_closed)
    return engine


def make_direct(url: str, *, connect_s: float, statement_s: float, pool: int) -> Direct:
    """Make the way past SQLAlchemy, of at most `pool` connections; times as for `make_engine`."""
    return Direct(_connecting(url, _KEPT_PLANS, connect_s, statement_s), wait_s=connect_s, most=pool)


def connecting(
    url: str, *, connect_s: float, statement_s: float
) -> Callable[[], Awaitable[asyncpg.Connection]]:
    """Return what makes a connection that keeps nothing prepared, for what is asked once; times as above."""
    return _connecting(url, _PLANS, connect_s, statement_s, statement_cache_size=0)


def _connecting(
    url: str, plans: str, connect_s: float, statement_s: float, **more: int
) -> Callable[[], Awaitable[asyncpg.Connection]]:
    dsns = deque(_dsn(each) for each in hosts_apart(url))
    named = "target_session_attrs=" in url or "PGTARGETSESSIONATTRS" in os.environ
    # After a failover the server that was the first may still be there, and only read. Where it is the only one, what
    # reads can go on with it.
    target = "read-write" if len(dsns) > 1 and not named else None
    longest_ms = int((statement_s + _SERVER_LATER_S) * 1000)
    ends = f"SET statement_timeout = {longest_ms}; SET idle_in_transaction_session_timeout = {longest_ms}"

    async def connect() -> asyncpg.Connection:
        for left in reversed(range(len(dsns))):
            try:
                # The driver would give all hosts one time, so that one that is silent would take that of the others.
                return await connect_to(dsns[0], connect_s / len(dsns))
            except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InternalClientError):
                if not left:
                    raise
                # The one that is asked first is the one that answered last.
                dsns.rotate(-1)
        raise AssertionError("a URL has one host at least")

    async def connect_to(dsn: str, within_s: float) -> asyncpg.Connection:
        connection = await asyncpg.connect(
            dsn, timeout=within_s, command_timeout=statement_s, target_session_attrs=target, **more
        )
        try:
            await connection.execute(f"{plans}; {ends}")
        except BaseException:
            connection.terminate()
            raise
        return connection

    return connect


def _dsn(url: str) -> str:
    # asyncpg reads the URL, so that sslmode, sslrootcert and the like mean what they do elsewhere.
    address, separator, query = url.partition("?")
    kept = [each for each in query.split("&") if each.partition("=")[0] not in _FOR_LIBPQ_ONLY]
    return address + separator + "&".join(kept)


def _refuse_closed(connection: Any, _record: Any, _fairy: Any) -> None:
    # After a restart of the server every pooled connection is closed, and known to be: the pool makes a new
    # one. A ping would find little more than that, and cost round trips at each use.
    if connection.driver_connection.is_closed():
        raise DisconnectionError("the server closed this connection")
