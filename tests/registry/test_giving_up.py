"""A write that is given up has ended, written or not, before anybody reads what it may have written."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from uuid import uuid4

import pytest
from sqlalchemy import text

from broker.errors import RegistryUnavailable
from broker.models.records import UserMessage, now
from broker.registry import engine
from broker.registry.channels import Channels
from broker.registry.conversations import Conversations, NewTurn
from broker.registry.database import Database
from broker.registry.records import Conversation, Turn

ACTIVE = (
    "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
)


@asynccontextmanager
async def writers_waiting(url: str, table: str) -> AsyncIterator[None]:
    """Keep whoever writes to a table waiting; SQLite has one lock for all tables."""
    other = Database(url)
    async with other.write() as connection:
        if other.dialect == "postgresql":
            await connection.execute(text(f"LOCK TABLE {table} IN EXCLUSIVE MODE"))
        yield
    await other.close()


async def until_nothing_runs(url: str) -> None:
    """Wait until the server does nothing any more for anybody but us."""
    other = Database(url)
    async with asyncio.timeout(20):
        while True:
            async with other.read() as connection:
                if await connection.scalar(text(f"{ACTIVE} AND state <> 'idle'")) == 0:
                    break
    await other.close()


def turn_of(asked: UserMessage) -> NewTurn:
    key = f"{asked.channel_id}/{asked.user.id}"
    turn = Turn(
        asked.id, key, asked.channel_id, 1, asked.model_dump(mode="json"), [], "answered", True, now()
    )
    return NewTurn(turn, Conversation(key, asked.channel_id, asked.user.id, b"{}", 0, 1))


@pytest.fixture(params=["turns", "transaction"])
def way(request: pytest.FixtureRequest) -> Callable[[Database], tuple[Awaitable[object], str, str]]:
    """Provide a write, its table, and the question whether it was written, by each way to the database."""

    def turns(database: Database) -> tuple[Awaitable[object], str, str]:
        asked = UserMessage.model_validate({
            "id": str(uuid4()),
            "channelId": "c",
            "user": {"id": "u"},
            "message": {"textMessage": {"text": "hello"}},
        })  # fmt: skip
        return Conversations(database).commit([turn_of(asked)]), "turns", "SELECT count(*) FROM turns"

    def transaction(database: Database) -> tuple[Awaitable[object], str, str]:
        return Channels(database).create("a", {}), "channels", "SELECT count(*) FROM channels"

    return turns if request.param == "turns" else transaction


@pytest.mark.parametrize("cancel", [True, False], ids=["cancelled", "out of time"])
async def test_a_write_that_was_given_up_does_not_take_place_after_it_was_read(
    database_url: str,
    way: Callable[[Database], tuple[Awaitable[object], str, str]],
    cancel: bool,
    connections_end: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if not cancel:
        monkeypatch.setattr(engine, "STATEMENT_S", 0.3)
    database, reader = Database(database_url), Database(database_url)
    work, table, question = way(database)
    task = asyncio.ensure_future(work)
    async with writers_waiting(database_url, table):
        await asyncio.wait({task}, timeout=0.1)
        if cancel:
            task.cancel()
        await asyncio.wait({task}, timeout=0.6)
        # SQLite's statement cannot be broken off: its end is that of the writer before it.
        before = await count(reader, question) if task.done() else None
    with suppress(RegistryUnavailable, asyncio.CancelledError):
        await task
    if before is None:
        before = await count(reader, question)
    if database.dialect == "postgresql":
        await until_nothing_runs(database_url)
    else:
        # Whoever still waited for the lock has it before this.
        await asyncio.sleep(0.2)
    assert await count(reader, question) == before
    for each in (database, reader):
        await each.close()


async def count(database: Database, question: str) -> int:
    async with database.read() as connection:
        return int(await connection.scalar(text(question)) or 0)
