"""A database that cannot be used as it is: the start says so in one sentence. Several hosts in its URL are tried."""

import asyncio
import os
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest
from servers import pgbouncer
from servers.postgres import fresh_database
from servers.process import free_port
from sqlalchemy import text
from sqlalchemy.engine import make_url

from broker.errors import RegistryError, RegistryUnavailable, SettingsError
from broker.registry.database import Database
from broker.registry.migration import migrate
from broker.registry.sqlite import connect


def with_hosts(url: str, *hosts: str) -> str:
    """Return a URL of other hosts, each with its port."""
    parsed = make_url(url)
    plain = parsed.render_as_string(hide_password=False)
    return plain.replace(f"@{parsed.host}:{parsed.port}/", f"@{','.join(hosts)}/")


def host_of(url: str) -> str:
    parsed = make_url(url)
    return f"{parsed.host}:{parsed.port}"


@pytest.fixture
async def silent_port() -> AsyncIterator[int]:
    """Provide a port that takes connections and never says a word."""
    ended = asyncio.Event()

    async def say_nothing(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await ended.wait()
        writer.close()

    server = await asyncio.start_server(say_nothing, "127.0.0.1", 0)
    yield server.sockets[0].getsockname()[1]
    ended.set()
    server.close()


async def test_a_host_that_is_away_or_silent_leaves_it_to_the_next(
    postgres_url: str, silent_port: int
) -> None:
    hosts = (f"127.0.0.1:{free_port()}", f"127.0.0.1:{silent_port}", host_of(postgres_url))
    database = Database(with_hosts(postgres_url, *hosts))
    await database.check_schema()
    async with asyncio.timeout(1):
        # The one that answered is asked first from now on.
        await database.engine.dispose()
        await database.check()
    await database.close()


async def test_of_several_servers_one_that_can_only_be_read_is_away_until_it_can_be_written(
    postgres_server: str, postgres_url: str
) -> None:
    admin = await asyncpg.connect(postgres_server)
    read_only = f"ALTER DATABASE {make_url(postgres_url).database} SET default_transaction_read_only = "
    await admin.execute(read_only + "on")
    at = make_url(postgres_url)
    server = f"@{at.host}:{at.port}"
    database = Database(postgres_url.replace(server, f"{server},{at.host}:{at.port}"))
    with pytest.raises(RegistryUnavailable):
        await database.check()
    await admin.execute(read_only + "off")
    await database.check()
    await database.close()
    await admin.close()


async def test_a_parameter_that_nobody_knows(postgres_url: str) -> None:
    separator = "&" if "?" in postgres_url else "?"
    for work in (migrate, check):
        with pytest.raises(SettingsError, match=r"parameter of POSTBOTE_DATABASE_URL .*\"pool_siez\""):
            await work(f"{postgres_url}{separator}pool_siez=5")
        with pytest.raises(SettingsError, match="POSTBOTE_DATABASE_URL"):
            await work(f"{postgres_url}{separator}sslmode=perhaps")


async def test_a_user_who_may_not_create_tables(postgres_server: str) -> None:
    async with fresh_database(postgres_server) as url:
        role = f"{make_url(url).database}_user"
        admin = await asyncpg.connect(url)
        await admin.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'a-password'")
        try:
            await admin.execute("REVOKE CREATE ON SCHEMA public FROM PUBLIC")
            theirs = make_url(url).set(username=role, password="a-password")
            with pytest.raises(RegistryError, match="GRANT CREATE ON SCHEMA public"):
                await migrate(theirs.render_as_string(hide_password=False))
        finally:
            await admin.execute(f"DROP ROLE {role}")
            await admin.close()


async def test_a_file_that_is_no_database(tmp_path: Path, connections_end: None) -> None:
    (tmp_path / "registry.db").write_text("Dear diary, " * 1000)
    for work in (migrate, check):
        with pytest.raises(RegistryError, match="not a database"):
            await work(f"sqlite:///{tmp_path / 'registry.db'}")


async def test_a_path_is_taken_as_it_is_written(tmp_path: Path) -> None:
    path = tmp_path / "what? #1 100%20" / "registry.db"
    await migrate(f"sqlite:///{path}")
    assert path.is_file()
    assert os.listdir(tmp_path) == ["what? #1 100%20"]  # noqa: PTH208


@pytest.mark.skipif(pgbouncer.program() is None, reason="PgBouncer is not installed")
async def test_a_pooler_that_shares_connections_between_transactions_is_refused(postgres_url: str) -> None:
    with pgbouncer.pgbouncer(postgres_url, "transaction") as shared:
        for work in (migrate, check):
            with pytest.raises(SettingsError, match="pool_mode = session"):
                await work(shared)
    with pgbouncer.pgbouncer(postgres_url, "session") as kept:
        await migrate(kept)
        await check(kept)
        database = Database(kept)
        async with database.write() as connection:
            assert await connection.scalar(text("SHOW enable_seqscan")) == "off"
        await database.close()


async def check(url: str) -> None:
    """Check a database as every process does at its start."""
    database = Database(url)
    try:
        await database.check_schema()
    finally:
        await database.close()


async def test_a_connection_to_sqlite_that_is_given_up_leaves_no_thread_that_would_answer_a_loop_that_is_gone(
    tmp_path: Path,
) -> None:
    before = set(threading.enumerate())
    given_up = 0
    for turns in [1, 2, 3] * 10:
        opening = asyncio.create_task(connect(tmp_path / "registry.db", busy_s=1.0))
        for _ in range(turns):
            await asyncio.sleep(0)
        opening.cancel()
        await asyncio.wait({opening})
        if opening.cancelled():
            given_up += 1
            new = set(threading.enumerate()) - before
            assert not [thread for thread in new if "connection_worker" in thread.name]
        else:
            await opening.result().close()
            opening.result().thread_ended(1.0)
    assert given_up
