"""The engine: which database an address means. Its driver is imported by the one that is asked for."""

from typing import TYPE_CHECKING

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError
from sqlalchemy.ext.asyncio import AsyncEngine

from broker.errors import RegistryError

if TYPE_CHECKING:
    from broker.registry.direct import Direct

#: How long to wait for a connection, and for one statement, in seconds.
CONNECT_S = 5.0
STATEMENT_S = 30.0
#: Connections of one process: for most that is asked, and on PostgreSQL for what every message asks.
POOL, DIRECT_POOL = 6, 4


def make_engine(url: str) -> AsyncEngine:
    """Make an engine for a `postgresql://`, `postgres://` or `sqlite:///` URL; connects to nothing yet.

    Raises RegistryError for any other URL.
    """
    parsed = _read(url)
    if _is_sqlite(parsed):
        from broker.registry import sqlite

        return sqlite.make_engine(parsed, statement_s=STATEMENT_S, pool=POOL + DIRECT_POOL)
    from broker.registry import postgresql

    return postgresql.make_engine(parsed, connect_s=CONNECT_S, statement_s=STATEMENT_S, pool=POOL)


def make_direct(url: str) -> "Direct | None":
    """Make the way past SQLAlchemy, where the URL is one of PostgreSQL; raises RegistryError as `make_engine`."""
    parsed = _read(url)
    if _is_sqlite(parsed):
        return None
    from broker.registry import postgresql

    return postgresql.make_direct(parsed, connect_s=CONNECT_S, statement_s=STATEMENT_S, pool=DIRECT_POOL)


def _read(url: str) -> URL:
    try:
        return make_url(url)
    except (ArgumentError, ValueError):
        # The URL itself may hold a password, so the message does not repeat it.
        raise RegistryError(
            "The database's URL cannot be read; it begins with postgresql:// or sqlite:///."
        ) from None


def _is_sqlite(url: URL) -> bool:
    match url.drivername.partition("+")[0]:
        case "sqlite":
            return True
        case "postgresql" | "postgres":
            return False
        case other:
            raise RegistryError(
                f"There is no registry on {other}; the database's URL begins with postgresql:// or sqlite:///."
            )
