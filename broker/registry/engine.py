"""The engine: which database an address means. Its driver is imported by the one that is asked for."""

from typing import TYPE_CHECKING

from sqlalchemy.ext.asyncio import AsyncEngine

from broker.errors import RegistryError
from broker.server_urls import check_database_url

if TYPE_CHECKING:
    from broker.registry.direct import Direct

SQLITE = "sqlite:///"
#: How long to wait for a connection, and for one statement, in seconds.
CONNECT_S = 5.0
STATEMENT_S = 30.0
#: Connections of one process: for most that is asked, and on PostgreSQL for what every message asks.
POOL, DIRECT_POOL = 6, 4


def make_engine(url: str, *, statement_s: float | None = None) -> AsyncEngine:
    """Make an engine for a `postgresql://`, `postgres://` or `sqlite:///` URL; connects to nothing yet.

    On PostgreSQL a statement may take `statement_s` seconds, or 30. Raises RegistryError for any other URL.
    """
    if _is_sqlite(url):
        from broker.registry import sqlite

        return sqlite.make_engine(url.removeprefix(SQLITE), statement_s=STATEMENT_S, pool=POOL + DIRECT_POOL)
    from broker.registry import postgresql

    return postgresql.make_engine(url, connect_s=CONNECT_S, statement_s=statement_s or STATEMENT_S, pool=POOL)


def make_direct(url: str) -> "Direct | None":
    """Make the way past SQLAlchemy, where the URL is one of PostgreSQL; raises RegistryError as `make_engine`."""
    if _is_sqlite(url):
        return None
    from broker.registry import postgresql

    return postgresql.make_direct(url, connect_s=CONNECT_S, statement_s=STATEMENT_S, pool=DIRECT_POOL)


async def check_pooling(url: str) -> None:
    """Raise SettingsError where a pooler gives each transaction another connection to PostgreSQL."""
    if not _is_sqlite(url):
        from broker.registry import pooling, postgresql

        await pooling.check(postgresql.connecting(url, connect_s=CONNECT_S, statement_s=STATEMENT_S))


def _is_sqlite(url: str) -> bool:
    # What comes after it is a path as it is written, with whatever signs a folder's name may hold.
    if url.startswith(SQLITE):
        return True
    try:
        check_database_url(url)
    except ValueError as error:
        # The URL itself may hold a password, so the message does not repeat it.
        raise RegistryError(
            f"The database's URL (postgresql:// or sqlite:///) cannot be used: it {error}."
        ) from None
    return False
