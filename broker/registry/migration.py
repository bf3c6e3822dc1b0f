"""Migrations: brings a database to the schema of this version, with Alembic."""

import asyncio
import random
import time
from pathlib import Path

from sqlalchemy import Connection, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import AsyncConnection

from broker.registry.database import schema_of
from broker.registry.engine import STATEMENT_S, check_pooling, make_engine
from broker.registry.outages import is_outage, outages_told
from broker.registry.refusals import refusals_told
from broker.registry.schema import HEAD

#: An index of a table with many millions of rows takes minutes, and more on a slow disk; in seconds.
INDEX_S = 86_400.0
#: How often to see whether another migration has ended, in seconds.
LOOK_EVERY_S = 0.1
#: Any number will do, as long as two migrations of one database use the same.
LOCK = 7_095_071


async def migrate(url: str) -> None:
    """Bring the database to the newest schema; safe where two processes do it at once.

    Raises RegistryUnavailable where the database does not answer, SettingsError or RegistryError where it cannot be
    used as it is.
    """
    engine = make_engine(url, statement_s=INDEX_S)
    try:
        with refusals_told(), outages_told():
            await check_pooling(url)
            async with engine.connect() as connection:
                if engine.dialect.name == "sqlite":
                    await _write_ahead(connection)
                if await schema_of(connection) == HEAD:
                    # Nothing to do, and no need to load Alembic to find that out.
                    return
                await connection.rollback()
                if engine.dialect.name == "postgresql":
                    await _alone(connection)
                await connection.run_sync(_upgrade)
                await connection.commit()
    finally:
        await engine.dispose()


async def _alone(connection: AsyncConnection) -> None:
    """Wait until no other process migrates this database; none does until this connection ends."""
    # An index that is made beside those who write waits for all that was asked before, a lock that is waited for too:
    # so each asks at once or not at all, and again soon.
    alone = False
    while not alone:
        alone = bool((await connection.execute(text(f"SELECT pg_try_advisory_lock({LOCK})"))).scalar())
        await connection.rollback()
        if not alone:
            await asyncio.sleep(LOOK_EVERY_S)


async def _write_ahead(connection: AsyncConnection) -> None:
    """Have a SQLite file keep a write-ahead log, so that readers and the writer do not wait for each other."""
    # Two processes that change the mode at once would wait for each other, as long as they may wait at all. So
    # each tries at once or not at all, and again soon.
    give_up = time.monotonic() + STATEMENT_S
    await connection.exec_driver_sql("PRAGMA busy_timeout=0")
    while True:
        try:
            await connection.exec_driver_sql("PRAGMA journal_mode=WAL")
            break
        except OperationalError as error:
            if not is_outage(error) or time.monotonic() > give_up:
                raise
            await asyncio.sleep(random.uniform(0.01, 0.05))  # noqa: S311 - spreads load, keeps no secret
    await connection.exec_driver_sql(f"PRAGMA busy_timeout={int(STATEMENT_S * 1000)}")


def _upgrade(connection: Connection) -> None:
    from alembic import command
    from alembic.config import Config

    if connection.dialect.name == "sqlite":
        # One transaction for all. On PostgreSQL each migration has its own: some indexes are made outside of any.
        connection.exec_driver_sql("BEGIN IMMEDIATE")
    config = Config()
    # A configuration file would read a percent sign as the beginning of a name.
    scripts = str(Path(__file__).parent / "migrations").replace("%", "%%")
    config.set_main_option("script_location", scripts)
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
