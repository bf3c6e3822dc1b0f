"""The migrations make the tables that the code knows, whoever runs them, and however often."""

import asyncio
import warnings
from pathlib import Path

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
        config = Config()
        config.set_main_option("script_location", str(Path(migration.__file__).parent / "migrations"))
        config.attributes["connection"] = connection
        command.downgrade(config, "base")
        return inspect(connection).get_table_names()

    async with database.write() as connection:
        assert await connection.run_sync(downgrade) == ["alembic_version"]
