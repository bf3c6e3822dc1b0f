"""The database: one engine, reads and writes as transactions, and outages told apart from mistakes."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Table, event, text
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError, ProgrammingError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from broker.errors import RegistryUnavailable, SchemaMismatch
from broker.registry.schema import HEAD

#: How long to wait for a connection, and for one statement, in seconds.
CONNECT_S = 5.0
STATEMENT_S = 30.0
#: Connections of one process.
POOL = 10

#: PostgreSQL's classes of errors that mean "later": connection, resources, an operator's intervention, a serialization
#: failure or deadlock, a server that starts up or shuts down (its manual, appendix A).
OUTAGES = ("08", "53", "57", "40")


class Database:
    """One database, PostgreSQL or SQLite, by its URL. Opens its connections as they are needed."""

    def __init__(self, url: str) -> None:
        self.engine: AsyncEngine = make_engine(url)
        self.dialect = self.engine.dialect.name
        # SQLite has one writer at a time. Waiting in line here is fair and quick; waiting for its lock is neither.
        self._writing = asyncio.Lock() if self.dialect == "sqlite" else None

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncConnection]:
        """Open a connection for reading; raises RegistryUnavailable while the database is away."""
        with_outages = outages_told()
        with with_outages:
            async with self.engine.connect() as connection:
                yield connection

    @asynccontextmanager
    async def write(self) -> AsyncIterator[AsyncConnection]:
        """Open one transaction, committed at the end; raises RegistryUnavailable while the database is away.

        Where the connection is lost during the commit, it may have happened: what is written has to bear being
        written again.
        """
        async with AsyncExitStack() as stack:
            stack.enter_context(outages_told())
            if self._writing is not None:
                await stack.enter_async_context(self._writing)
                connection = await stack.enter_async_context(self.engine.connect())
                await connection.exec_driver_sql("BEGIN IMMEDIATE")
                try:
                    yield connection
                except BaseException:
                    await connection.rollback()
                    raise
                await connection.commit()
            else:
                yield await stack.enter_async_context(self.engine.begin())

    def insert(self, table: Table) -> Any:
        """Return the dialect's own insert, which knows on_conflict_do_nothing and on_conflict_do_update."""
        return sqlite.insert(table) if self.dialect == "sqlite" else postgresql.insert(table)

    async def check(self) -> None:
        """Return where the database answers; raises RegistryUnavailable otherwise."""
        async with self.read() as connection:
            await connection.execute(text("SELECT 1"))

    async def check_schema(self) -> None:
        """Return where the database has this version's schema; raises SchemaMismatch otherwise."""
        async with self.read() as connection:
            try:
                found = (await connection.execute(text("SELECT version_num FROM alembic_version"))).scalar()
            except (ProgrammingError, OperationalError) as error:
                if is_outage(error) and self.dialect != "sqlite":
                    raise
                found = None
        if found != HEAD:
            raise SchemaMismatch(
                f"The database has the schema {found or '(none)'}, and this version needs {HEAD}: "
                "run `postbote migrate` with the same settings first."
            )

    async def close(self) -> None:
        """Close all connections."""
        await self.engine.dispose()


def make_engine(url: str) -> AsyncEngine:
    """Make an engine for a `postgresql://` or `sqlite:///` URL; the driver is our business."""
    parsed = make_url(url)
    if parsed.drivername.startswith("sqlite"):
        if parsed.database:
            Path(parsed.database).parent.mkdir(parents=True, exist_ok=True)
        engine = create_async_engine(
            parsed.set(drivername="sqlite+aiosqlite"), pool_size=POOL, connect_args={"timeout": STATEMENT_S}
        )
        event.listen(engine.sync_engine, "connect", _prepare_sqlite)
        return engine
    return create_async_engine(
        parsed.set(drivername="postgresql+asyncpg"),
        pool_size=POOL,
        max_overflow=0,
        pool_timeout=CONNECT_S,
        pool_pre_ping=True,
        connect_args={"timeout": CONNECT_S, "command_timeout": STATEMENT_S},
    )


def _prepare_sqlite(connection: Any, _record: Any) -> None:
    # We say when a transaction begins (BEGIN IMMEDIATE), not the driver.
    connection.isolation_level = None
    cursor = connection.cursor()
    for pragma in (
        "journal_mode=WAL",
        "synchronous=FULL",
        "foreign_keys=ON",
        f"busy_timeout={int(STATEMENT_S * 1000)}",
    ):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


class outages_told:  # noqa: N801 - used as a with statement's verb
    """Turns a database's absence into RegistryUnavailable, and leaves every other error as it is."""

    def __enter__(self) -> None: ...

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if error is not None and is_outage(error):
            reason = str(getattr(error, "orig", None) or error) or type(error).__name__
            raise RegistryUnavailable(f"The database does not answer: {reason.splitlines()[0]}") from error


def is_outage(error: BaseException) -> bool:
    """Tell whether an error means that the database is away or overloaded, so that trying again later is right."""
    if isinstance(error, PoolTimeout | OSError | TimeoutError):
        return True
    if not isinstance(error, DBAPIError):
        return False
    if error.connection_invalidated:
        return True
    code = getattr(error.orig, "sqlstate", None) or getattr(error.orig, "pgcode", None)
    if isinstance(code, str):
        return code.startswith(OUTAGES)
    if isinstance(error, OperationalError):
        # SQLite: locked, disk full, an unreadable file. A missing table is a mistake.
        return "no such" not in str(error.orig) and "syntax" not in str(error.orig)
    return isinstance(error, InterfaceError) and "closed" in str(error)
