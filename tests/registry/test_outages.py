"""A database that is away is told apart from a mistake, and comes back by itself."""
# ruff: noqa: PT012 - a transaction's end is what raises, and belongs into the block

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import asyncpg
import pytest
from servers.postgres import database_url as url_of
from servers.postgres import fresh_database
from sqlalchemy import func, literal_column, select, text
from sqlalchemy.exc import DBAPIError

from broker.errors import RegistryError, RegistryUnavailable
from broker.registry import engine
from broker.registry.channels import Channels
from broker.registry.conversations import Conversations
from broker.registry.database import Database
from broker.registry.direct import Statement
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


#: By the manual's appendix A: those for which a later try is right, and those of what was asked.
LATER = [
    "08006",
    "25006",
    "25P03",
    "40001",
    "40P01",
    "42P01",
    "42P10",
    "53100",
    "53200",
    "53300",
    "55P03",
    "57014",
    "57P01",
    "58030",
    "58P01",
]
MISTAKES = ["0A000", "21000", "22001", "22P02", "23502", "23505", "42601", "42703", "P0001", "XX000"]


@pytest.mark.parametrize("way", ["read", "write", "direct"])
async def test_what_postgresql_refuses_is_an_outage_or_a_mistake_by_its_class(
    postgres: Database, way: str
) -> None:
    direct = postgres.direct
    assert direct is not None
    async with postgres.write() as connection:
        await connection.execute(
            text(
                "CREATE FUNCTION refuse(code text) RETURNS int LANGUAGE plpgsql AS "
                "$$ BEGIN RAISE EXCEPTION 'refused' USING ERRCODE = code; END $$"
            )
        )
    told: dict[str, list[str]] = {"later": [], "mistakes": []}
    for code in LATER + MISTAKES:
        statement = select(func.refuse(literal_column(f"'{code}'")))
        try:
            if way == "direct":
                await direct.run(Statement(statement), {})
            else:
                async with (postgres.read if way == "read" else postgres.write)() as connection:
                    await connection.execute(statement)
        except RegistryUnavailable:
            told["later"].append(code)
        except (DBAPIError, asyncpg.PostgresError):
            told["mistakes"].append(code)
    assert told == {"later": LATER, "mistakes": MISTAKES}
    # None of them is left in a state that the next one meets.
    await postgres.check_writable()


async def test_a_server_that_takes_no_writes_is_an_outage_and_no_connection_to_it_is_kept(
    postgres: Database, postgres_server: str, postgres_url: str
) -> None:
    channels, store, name = Channels(postgres), Conversations(postgres), postgres_url.rpartition("/")[2]
    channel, _ = await channels.create("a", {})
    await postgres.check_writable()
    admin = await asyncpg.connect(postgres_server)
    try:
        await admin.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
        await cut(postgres_server, postgres_url)
        for work in (
            postgres.check_writable,
            lambda: channels.create("b", {}),
            lambda: store.mark_published(["a"]),
        ):
            for _ in range(2):
                with pytest.raises(RegistryUnavailable, match="read-only"):
                    await work()
        # What only reads goes on.
        assert await channels.get(channel.id) == channel
        await admin.execute(f"ALTER DATABASE {name} RESET default_transaction_read_only")
    finally:
        await admin.close()
    # Now a new connection takes writes, as after a failover, and each of the old ones may be met once.
    for work in (
        postgres.check_writable,
        lambda: channels.create("b", {}),
        lambda: store.mark_published(["a"]),
    ):
        with suppress(RegistryUnavailable):
            await work()
        await work()


async def test_a_database_without_a_schema_takes_no_writes(postgres_server: str) -> None:
    async with fresh_database(postgres_server) as url:
        empty = Database(url)
        await empty.check()
        with pytest.raises(RegistryUnavailable, match="alembic_version"):
            await empty.check_writable()
        await empty.close()


async def test_a_pool_that_is_used_up(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "POOL", 1)
    monkeypatch.setattr(engine, "CONNECT_S", 0.3)
    database = Database(postgres_url)
    async with database.write():
        with pytest.raises(RegistryUnavailable, match="QueuePool"):
            await database.check()
    await database.check()
    await database.close()


@pytest.mark.parametrize("statement", ["SELEKT 1", "SELECT nothing FROM channels"])
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
