"""The database: one engine, reads and writes as transactions, and outages told apart from mistakes."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

from sqlalchemy import Table, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from broker.disk import require_space
from broker.ending import to_its_end
from broker.errors import NotReady, SchemaMismatch
from broker.registry.engine import check_pooling, make_direct, make_engine
from broker.registry.outages import outages_told, spends_connection
from broker.registry.refusals import no_such_table, refusals_told
from broker.registry.schema import HEAD

if TYPE_CHECKING:
    import sqlite3

    from broker.registry.sqlite import Connection

T = TypeVar("T")


class Database:
    """One database, PostgreSQL or SQLite, by its URL. Opens its connections as they are needed."""

    def __init__(self, url: str) -> None:
        self._url = url
        self.engine = make_engine(url)
        #: For what every message asks; None where the dialect has no such way.
        self.direct = make_direct(url)
        self.dialect = self.engine.dialect.name
        # A read is one statement, or several that need no common moment: no transaction then.
        self._reads = (
            self.engine
            if self.dialect == "sqlite"
            else self.engine.execution_options(isolation_level="AUTOCOMMIT")
        )
        # SQLite has one writer at a time. Waiting in line here is fair and quick, and for its lock neither.
        self._writing = asyncio.Lock() if self.dialect == "sqlite" else None

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncConnection]:
        """Open a connection for reading; raises RegistryUnavailable while the database is away."""
        with outages_told():
            async with self._reads.connect() as connection:
                try:
                    yield connection
                except (Exception, asyncio.CancelledError) as error:
                    await _drop_where_spent(connection, error)
                    raise

    @asynccontextmanager
    async def listing(self) -> AsyncIterator[AsyncConnection]:
        """Open a connection for reading a page of a list, which has an index in its order; as `read` otherwise.

        PostgreSQL goes along that index, whatever it believes of the rows: were it to gather and sort them instead,
        it would read all that match for the sake of one page.
        """
        if self.dialect == "sqlite":
            async with self.read() as connection:
                yield connection
            return
        with outages_told():
            async with self.engine.connect() as connection:
                try:
                    await connection.exec_driver_sql("SET LOCAL enable_sort = off")
                    yield connection
                except (Exception, asyncio.CancelledError) as error:
                    await _drop_where_spent(connection, error)
                    raise

    @asynccontextmanager
    async def write(self) -> AsyncIterator[AsyncConnection]:
        """Open one transaction, committed at the end; raises RegistryUnavailable while the database is away.

        Where the connection is lost during the commit, it may have happened: what is written has to bear
        being written again. Where this is cancelled, or takes too long, its last statement has ended when this
        raises.
        """
        async with AsyncExitStack() as stack:
            stack.enter_context(outages_told())
            if self._writing is not None:
                await stack.enter_async_context(self._writing)
            connection = await stack.enter_async_context(self.engine.connect())
            if self._writing is not None:
                await connection.exec_driver_sql("BEGIN IMMEDIATE")
            try:
                yield connection
                # Not reached after an exception: closing the connection rolls back then.
                await connection.commit()
            except (Exception, asyncio.CancelledError) as error:
                await _drop_where_spent(connection, error)
                raise

    @asynccontextmanager
    async def single(self) -> AsyncIterator[AsyncConnection]:
        """Open a connection for one statement that writes and is a transaction of its own, which spares its frame.

        As `write` otherwise.
        """
        if self.dialect == "sqlite":
            async with self.write() as connection:
                yield connection
        else:
            async with self.read() as connection:
                yield connection

    async def in_thread(self, work: "Callable[[sqlite3.Connection], T]") -> T:
        """Write to SQLite in one step of a connection's thread, in which each statement is a transaction of its own.

        It takes place also where whoever waits for it is cancelled meanwhile, and has ended when this raises. Raises
        RegistryUnavailable while the database is away.
        """
        assert self._writing is not None, "only SQLite is a part of this process"
        with outages_told():
            async with self._writing, self.engine.connect() as connection:
                raw = await connection.get_raw_connection()
                driver = cast("Connection", raw.driver_connection)
                try:
                    return await driver.in_thread(work)
                except asyncio.CancelledError:
                    # The thread does one thing after the other: what is asked for now comes after the work's end.
                    await to_its_end(driver.in_thread(lambda _: None))
                    raise

    def insert(self, table: Table) -> Any:
        """Return the dialect's own insert, which knows on_conflict_do_nothing and on_conflict_do_update."""
        return insert_into(self.dialect, table)

    async def check(self) -> None:
        """Return where the database answers; raises RegistryUnavailable otherwise."""
        async with self.read() as connection:
            await connection.execute(text("SELECT 1"))

    async def check_writable(self) -> None:
        """Return where the database takes a write; raises RegistryUnavailable otherwise.

        One row is written as it is, and committed: a standby, a file that is read-only and most full disks refuse
        that, and say so; and so does a database without a schema.
        """
        async with self.single() as connection:
            await connection.execute(text("UPDATE alembic_version SET version_num = version_num"))

    async def check_ready(self) -> None:
        """Return where this version can read and write; raises NotReady or RegistryUnavailable otherwise."""
        async with self.read() as connection:
            found = await schema_of(connection)
            if found != HEAD:
                raise NotReady(
                    f"the schema is {found or 'missing'}; it has to be {HEAD}: run `postbote migrate`"
                )
            # Said in a word here, where a write would only be refused.
            asked = text("SHOW transaction_read_only")
            if self.dialect != "sqlite" and (await connection.execute(asked)).scalar() == "on":
                raise NotReady("read-only")
        if self.dialect == "sqlite":
            await asyncio.to_thread(require_space, Path(self.engine.url.database or "."))
        await self.check_writable()

    async def check_schema(self) -> None:
        """Return where the database has this version's schema; raises SchemaMismatch otherwise.

        Raises SettingsError or RegistryError where it cannot be used as it is, and RegistryUnavailable while it is
        away.
        """
        with refusals_told(), outages_told():
            await check_pooling(self._url)
            async with self.read() as connection:
                found = await schema_of(connection)
        if found is not None and found > HEAD:
            raise SchemaMismatch(
                f"The database has the schema {found}, of a newer Postbote; this version needs {HEAD}: "
                "install the newer version here too."
            )
        if found != HEAD:
            raise SchemaMismatch(
                f"The database has the schema {found or '(none)'}, and this version needs {HEAD}: "
                "run `postbote migrate` with the same settings first."
            )

    async def close(self) -> None:
        """Close all connections."""
        if self.direct is not None:
            await self.direct.close()
        await self.engine.dispose()


async def _drop_where_spent(connection: AsyncConnection, error: BaseException) -> None:
    """Keep a connection out of the pool after an error that it would meet again; a statement on it has ended then."""
    if spends_connection(error):
        await to_its_end(connection.invalidate())


async def schema_of(connection: AsyncConnection) -> str | None:
    """Read which schema a database has; None where it has none. Other errors are raised as SQLAlchemy tells them."""
    try:
        found = (await connection.execute(text("SELECT version_num FROM alembic_version"))).scalar()
    except DBAPIError as error:
        if no_such_table(error):
            return None
        raise
    return None if found is None else str(found)


def insert_into(dialect: str, table: Table) -> Any:
    """Return a dialect's own insert, which knows on_conflict_do_nothing and on_conflict_do_update."""
    # Each comes with all of its dialect's types, of which a process needs one.
    if dialect == "sqlite":
        from sqlalchemy.dialects import sqlite

        return sqlite.insert(table)
    from sqlalchemy.dialects import postgresql

    return postgresql.insert(table)
