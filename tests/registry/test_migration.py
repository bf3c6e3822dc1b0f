"""The migrations make the tables that the code knows, whoever runs them, and however often."""

import asyncio
import warnings
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import asyncpg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from servers.postgres import fresh_database
from sqlalchemy import Connection, inspect, text

from broker.errors import SchemaMismatch
from broker.registry import migration
from broker.registry.database import Database
from broker.registry.engine import make_engine
from broker.registry.migration import migrate
from broker.registry.partial_indexes import metadata
from broker.registry.schema import HEAD


def on_columns(_item: object, name: str, kind: str, *_: object) -> bool:
    """Leave out the indexes on expressions, which each database writes down in words of its own."""
    return kind != "index" or not name.endswith("_newest")


def differences(connection: Connection) -> list[object]:
    opts = {"compare_type": True, "compare_server_default": True, "include_object": on_columns}
    context = MigrationContext.configure(connection, opts=opts)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*expression-based index")
        return list(compare_metadata(context, metadata))


def index_names(connection: Connection) -> set[str]:
    """Return the names of all indexes that were made by themselves, those on expressions too."""
    if connection.dialect.name == "sqlite":
        made = "SELECT name FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL"
    else:
        made = (
            "SELECT relname FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid WHERE indisvalid "
            "AND relnamespace = 'public'::regnamespace "
            "AND NOT EXISTS (SELECT FROM pg_constraint WHERE conindid = indexrelid AND contype IN ('p', 'u'))"
        )
    return {row[0] for row in connection.execute(text(made))}


def conditional_indexes(connection: Connection) -> dict[str, str]:
    """Return the indexes on a part of a table, which Alembic does not compare, with their conditions."""
    column = "sql" if connection.dialect.name == "sqlite" else "indexdef"
    table = "sqlite_master" if connection.dialect.name == "sqlite" else "pg_indexes"
    name = "name" if connection.dialect.name == "sqlite" else "indexname"
    rows = connection.execute(text(f"SELECT {name}, {column} FROM {table} WHERE {column} LIKE '% WHERE %'"))
    return {row[0]: row[1].partition(" WHERE ")[2].strip("()").replace("::text", "") for row in rows}


async def test_the_migrations_make_exactly_the_tables_of_the_code(database: Database) -> None:
    async with database.read() as connection:
        assert await connection.run_sync(differences) == []
        made = await connection.run_sync(conditional_indexes)
        names = await connection.run_sync(index_names)
    assert {name: "pending" in condition for name, condition in made.items()} == {
        "ix_deliveries_pending": True,
        "ix_turns_said": False,
    }
    assert names == {str(index.name) for table in metadata.tables.values() for index in table.indexes}


async def test_a_table_that_differs_would_be_noticed(database: Database) -> None:
    async with database.write() as connection:
        await connection.execute(text("DROP INDEX ix_turns_channel_id"))
        await connection.execute(text("ALTER TABLE turns ADD COLUMN surplus TEXT"))
    async with database.read() as connection:
        assert len(await connection.run_sync(differences)) == 2


async def test_migrating_again_keeps_what_is_there(database: Database, database_url: str) -> None:
    insert = (
        "INSERT INTO channels (id, name, bot, verify_token, created_at) VALUES ('c', 'n', '{}', 'v', :at)"
    )
    at = "'2026-01-02 03:04:05'"
    async with database.write() as connection:
        await connection.execute(text(insert.replace(":at", at)))
    await migrate(database_url)
    async with database.read() as connection:
        assert await connection.scalar(text("SELECT count(*) FROM channels")) == 1


async def several_at_once(url: str) -> None:
    await asyncio.gather(*(migrate(url) for _ in range(4)))
    database = Database(url)
    try:
        await database.check_schema()
    finally:
        await database.close()


async def test_several_may_migrate_one_sqlite_file_at_once(tmp_path: Path) -> None:
    await several_at_once(f"sqlite:///{tmp_path / 'with 100%' / 'new.db'}")


async def test_several_may_migrate_one_postgresql_database_at_once(postgres_server: str) -> None:
    async with fresh_database(postgres_server) as url:
        await several_at_once(url)


def test_the_head_that_the_code_knows_is_the_newest_migration() -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(migration.__file__).parent / "migrations"))
    assert ScriptDirectory.from_config(config).get_current_head() == HEAD


async def test_a_database_without_tables_is_told_apart(tmp_path: Path, postgres_server: str) -> None:
    async with fresh_database(postgres_server) as url:
        for empty in (url, f"sqlite:///{tmp_path / 'empty.db'}"):
            database = Database(empty)
            with pytest.raises(SchemaMismatch, match="run `postbote migrate`"):
                await database.check_schema()
            await database.close()


@pytest.mark.parametrize(("version", "advice"), [("0000", "run `postbote migrate`"), ("9999", "newer")])
async def test_another_version_is_told_apart(database: Database, version: str, advice: str) -> None:
    await database.check_schema()
    async with database.write() as connection:
        await connection.execute(text(f"UPDATE alembic_version SET version_num = '{version}'"))
    with pytest.raises(SchemaMismatch, match=advice):
        await database.check_schema()


async def test_the_first_migration_can_be_taken_back(database: Database) -> None:
    from alembic import command

    def downgrade(connection: Connection) -> list[str]:
        command.downgrade(alembic_at(connection), "base")
        return inspect(connection).get_table_names()

    async with database.write() as connection:
        assert await connection.run_sync(downgrade) == ["alembic_version"]


def alembic_at(connection: Connection) -> Config:
    """Configure Alembic for a connection."""
    config = Config()
    config.set_main_option("script_location", str(Path(migration.__file__).parent / "migrations"))
    config.attributes["connection"] = connection
    return config


async def test_a_database_from_before_the_lists_comes_to_the_same_indexes(
    database: Database, database_url: str
) -> None:
    from alembic import command

    async with database.write() as connection:
        await connection.run_sync(lambda sync: command.downgrade(alembic_at(sync), "0004"))
        assert "ix_deliveries_unfinished" in await connection.run_sync(index_names)
    await migrate(database_url)
    async with database.read() as connection:
        assert await connection.run_sync(differences) == []
        names = await connection.run_sync(index_names)
    assert names == {str(index.name) for table in metadata.tables.values() for index in table.indexes}


A_DELIVERY = """
INSERT INTO deliveries (id, webhook_id, channel_id, conversation_key, user_id, response_id, message_counter, status,
    attempt_count, created_at)
VALUES ($1, 'wh', 'ch', 'ch/u', 'u', 'r', 1, 'delivered', 1, now())
"""
WAITING = (
    "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock' "
    "AND query LIKE '%INDEX%')"
)


@asynccontextmanager
async def before_the_lists(server: str) -> AsyncIterator[tuple[str, asyncpg.Connection, asyncpg.Connection]]:
    """Make a database of the version before, with two connections; the first is about to have written a delivery."""
    from alembic import command

    async with fresh_database(server) as url, AsyncExitStack() as stack:
        engine = make_engine(url)
        async with engine.connect() as connection:
            await connection.run_sync(lambda sync: command.upgrade(alembic_at(sync), "0004"))
        await engine.dispose()
        first, second = await asyncpg.connect(url), await asyncpg.connect(url)
        stack.push_async_callback(first.close)
        stack.push_async_callback(second.close)
        await first.execute("BEGIN")
        await first.execute(A_DELIVERY, "one")
        yield url, first, second


async def test_who_delivers_writes_on_while_indexes_are_made(postgres_server: str) -> None:
    async with before_the_lists(postgres_server) as (url, first, second):
        migrating = [asyncio.create_task(migrate(url)) for _ in range(2)]
        async with asyncio.timeout(30):
            while not await second.fetchval(WAITING):  # noqa: ASYNC110 - a lock that is waited for sends no event
                await asyncio.sleep(0.02)
        await second.execute("SET statement_timeout = '10s'")
        await second.execute(A_DELIVERY, "two")
        assert not any(task.done() for task in migrating)
        await first.execute("COMMIT")
        async with asyncio.timeout(30):
            await asyncio.gather(*migrating)
        assert await second.fetchval("SELECT version_num FROM alembic_version") == HEAD
        assert await second.fetchval("SELECT count(*) FROM deliveries") == 2
        assert await second.fetchval("SELECT bool_and(indisvalid) FROM pg_index")


async def test_an_index_that_was_cut_short_is_made_anew(postgres_server: str) -> None:
    name = "ix_deliveries_webhook_id_status_created_at"
    of_name = f"SELECT indisvalid FROM pg_index WHERE indexrelid = '{name}'::regclass"
    async with before_the_lists(postgres_server) as (url, first, second):
        await second.execute("SET statement_timeout = '300ms'")
        with pytest.raises(asyncpg.QueryCanceledError):
            await second.execute(
                f"CREATE INDEX CONCURRENTLY {name} ON deliveries (webhook_id, status, created_at)"
            )
        assert await second.fetchval(of_name) is False
        await first.execute("COMMIT")
        await migrate(url)
        assert await second.fetchval(of_name) is True
