"""A database that is away is told apart from a mistake, and comes back by itself."""
# ruff: noqa: PT012 - a transaction's end is what raises, and belongs into the block

import asyncio
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest
from servers.postgres import database_url as url_of
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from broker.errors import RegistryError, RegistryUnavailable
from broker.registry import engine
from broker.registry.channels import Channels
from broker.registry.database import Database
from broker.registry.migration import migrate


@pytest.fixture
async def postgres(postgres_url: str) -> AsyncIterator[Database]:
    """Provide a migrated PostgreSQL database."""
    database = Database(postgres_url)
    yield database
    await database.close()


async def expect_unavailable(url: str, words: str) -> None:
    database = Database(url)
    channels = Channels(database)
    for call in (
        database.check(),
        database.check_schema(),
        channels.create("a", {}),
        channels.get("a"),
        migrate(url),
    ):
        with pytest.raises(RegistryUnavailable, match=words):
            await call
    await database.close()


async def test_a_port_where_nobody_listens() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        await expect_unavailable(f"postgresql://u@127.0.0.1:{taken.getsockname()[1]}/d", "refused|failed")


async def test_a_name_that_resolves_to_nothing() -> None:
    await expect_unavailable("postgres://u@nowhere.invalid/d", "cannot be used at the moment")


async def test_a_server_that_takes_the_connection_and_is_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "CONNECT_S", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        await expect_unavailable(f"postgresql://u@127.0.0.1:{silent.getsockname()[1]}/d", "no answer in time")


async def test_a_server_that_hangs_up(postgres_url: str) -> None:
    async def hang_up(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()
        await writer.wait_closed()

    async with await asyncio.start_server(hang_up, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        await expect_unavailable(f"postgresql://u@127.0.0.1:{port}/d", "cannot be used at the moment")


async def test_a_database_that_was_dropped(postgres_server: str) -> None:
    await expect_unavailable(url_of(postgres_server, "postbote_nowhere"), "does not exist")


async def test_a_file_that_cannot_be_opened(tmp_path: Path, connections_end: None) -> None:
    (tmp_path / "folder").mkdir()
    await expect_unavailable(f"sqlite:///{tmp_path / 'folder'}", "unable to open")


async def test_a_file_that_another_process_keeps_locked(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "STATEMENT_S", 0.05)
    impatient, holder = Database(sqlite_url), Database(sqlite_url)
    async with holder.write():
        with pytest.raises(RegistryUnavailable, match="locked"):
            await Channels(impatient).create("a", {})
        # Readers do not wait for a writer.
        assert (await Channels(impatient).page(None, 10)).items == []
    await Channels(impatient).create("a", {})
    await impatient.close()
    await holder.close()


async def cut(postgres_server: str, postgres_url: str) -> None:
    """Cut all connections of a database from the server's side, as its restart does."""
    admin = await asyncpg.connect(postgres_server)
    name = postgres_url.rpartition("/")[2]
    await admin.execute(
        "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = $1", name
    )
    await admin.close()


async def test_pooled_connections_that_were_cut_are_made_anew(
    postgres: Database, postgres_server: str, postgres_url: str
) -> None:
    await asyncio.gather(*(postgres.check() for _ in range(8)))
    await cut(postgres_server, postgres_url)
    # Nobody is told: the connections are known to be closed.
    await asyncio.gather(*(postgres.check() for _ in range(8)))
    await cut(postgres_server, postgres_url)
    await Channels(postgres).create("a", {})


async def test_a_connection_that_is_cut_in_a_transaction(
    postgres: Database, postgres_server: str, postgres_url: str
) -> None:
    with pytest.raises(RegistryUnavailable):
        async with postgres.write() as connection:
            await connection.execute(text("DELETE FROM channels"))
            await cut(postgres_server, postgres_url)
            await connection.execute(text("DELETE FROM channels"))
    with pytest.raises(RegistryUnavailable):
        async with postgres.write() as connection:
            await connection.execute(text("DELETE FROM channels"))
            await cut(postgres_server, postgres_url)
    with pytest.raises(RegistryUnavailable):
        async with postgres.read() as connection:
            await connection.execute(text("SELECT 1"))
            await cut(postgres_server, postgres_url)
            await connection.execute(text("SELECT 1"))
    await postgres.check()


async def test_a_statement_that_takes_too_long(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "STATEMENT_S", 0.2)
    database = Database(postgres_url)
    with pytest.raises(RegistryUnavailable, match="no answer in time"):
        async with database.write() as connection:
            await connection.execute(text("SELECT pg_sleep(30)"))
    with pytest.raises(RegistryUnavailable, match="no answer in time"):
        async with database.read() as connection:
            await connection.execute(text("SELECT pg_sleep(30)"))
    await database.check()
    await database.close()


async def test_a_pool_that_is_used_up(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "POOL", 1)
    monkeypatch.setattr(engine, "CONNECT_S", 0.3)
    database = Database(postgres_url)
    async with database.write():
        with pytest.raises(RegistryUnavailable, match="QueuePool"):
            await database.check()
    await database.check()
    await database.close()


@pytest.mark.parametrize("statement", ["SELECT * FROM nowhere", "SELEKT 1", "SELECT nothing FROM channels"])
async def test_a_mistake_stays_a_mistake(database_url: str, statement: str) -> None:
    database = Database(database_url)
    for opened in (database.read, database.write):
        with pytest.raises(DBAPIError):
            async with opened() as connection:
                await connection.execute(text(statement))
    with pytest.raises(ZeroDivisionError):
        async with database.write() as connection:
            await connection.execute(text("DELETE FROM channels"))
            raise ZeroDivisionError
    with pytest.raises(DBAPIError):
        await Channels(database).create("a", {}, channel_id="same")
        await Channels(database).create("a", {}, channel_id="same")
    await database.close()


async def test_what_fails_leaves_nothing_behind(database_url: str) -> None:
    database = Database(database_url)
    channel, _ = await Channels(database).create("a", {})
    with pytest.raises(ZeroDivisionError):
        async with database.write() as connection:
            await connection.execute(text("DELETE FROM channels"))
            raise ZeroDivisionError
    assert await Channels(database).get(channel.id) == channel
    await database.close()


async def test_what_sqlite_committed_survives_a_loss_of_power(sqlite_url: str) -> None:
    # 2 is FULL: the log is synced at every commit (https://sqlite.org/pragma.html#pragma_synchronous).
    database = Database(sqlite_url)
    async with database.write() as connection:
        pragmas = ("synchronous", "journal_mode", "foreign_keys")
        found = [await connection.scalar(text(f"PRAGMA {pragma}")) for pragma in pragmas]
    assert found == [2, "wal", 1]
    await database.close()


@pytest.mark.parametrize("url", ["mysql://u@h/d", "nonsense", "", "http://[", "postgresql://u@h:port/d"])
def test_an_address_that_is_none_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(RegistryError, match="postgresql:// or sqlite:///") as caught:
        Database(url)
    assert not isinstance(caught.value, RegistryUnavailable)


async def test_the_usual_words_of_a_postgresql_address_are_understood(postgres_url: str) -> None:
    usual = "?sslmode=prefer&application_name=postbote-test&connect_timeout=3&channel_binding=prefer"
    database = Database(postgres_url.replace("postgresql://", "postgres://") + usual)
    async with database.read() as connection:
        assert await connection.scalar(text("SHOW application_name")) == "postbote-test"
    await database.close()
