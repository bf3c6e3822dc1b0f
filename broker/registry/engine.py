"""The engine: which database an address means. Its driver is imported by the one that is asked for."""

from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError
from sqlalchemy.ext.asyncio import AsyncEngine

from broker.errors import RegistryError

#: How long to wait for a connection, and for one statement, in seconds.
CONNECT_S = 5.0
STATEMENT_S = 30.0
#: Connections of one process.
POOL = 10


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
            from broker.registry import sqlite

            return sqlite.make_engine(parsed, statement_s=STATEMENT_S, pool=POOL)
        case "postgresql" | "postgres":
            from broker.registry import postgresql

            return postgresql.make_engine(parsed, connect_s=CONNECT_S, statement_s=STATEMENT_S, pool=POOL)
        case other:
            raise RegistryError(
                f"There is no registry on {other}; the database's URL begins with postgresql:// or sqlite:///."
            )
