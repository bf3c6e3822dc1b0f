"""The way past SQLAlchemy: what it is given, and how the absence of the database is told."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import asyncpg
import pytest
from sqlalchemy import Column, Integer, bindparam, func, literal_column, select, text

from broker.errors import RegistryUnavailable
from broker.registry.columns import Json, Utc, Words
from broker.registry.database import Database
from broker.registry.direct import Direct, Statement
from broker.registry.rows import Rows

MOMENT = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)


@pytest.fixture
async def direct(postgres_url: str) -> AsyncIterator[Direct]:
    """Provide the way past SQLAlchemy."""
    database = Database(postgres_url)
    assert database.direct is not None
    yield database.direct
    await database.close()


async def test_values_are_written_as_the_tables_columns_have_them(direct: Direct) -> None:
    columns = [Column("n", Integer), Column("said", Words()), Column("data", Json), Column("at", Utc)]
    rows = Rows("postgresql", columns)
    statement = Statement(rows.source.where(text("true")))
    given: list[dict[str, Any]] = [
        {"n": 1, "said": "nul \x00 and \ud800", "data": {"a": [1, "ü"]}, "at": MOMENT},
        {"n": None, "said": None, "data": None, "at": None},
    ]
    found = await direct.run(statement, rows.given(given))
    assert [tuple(row) for row in found] == [
        (1, "nul \N{REPLACEMENT CHARACTER} and \N{REPLACEMENT CHARACTER}", '{"a":[1,"ü"]}', MOMENT),
        (None, None, None, None),
    ]


async def test_many_at_a_time_wait_for_each_other(direct: Direct) -> None:
    statement = Statement(select(bindparam("n", type_=Integer)))
    found = await asyncio.gather(*(direct.run(statement, {"n": n}) for n in range(50)))
    assert [row[0] for (row,) in found] == list(range(50))


async def test_a_statement_that_was_broken_off_leaves_none_of_its_answer_to_the_next(direct: Direct) -> None:
    asked = Statement(select(bindparam("n", type_=Integer)))
    slow = Statement(select(func.pg_sleep(60), bindparam("n", type_=Integer)))
    for number in range(6):
        broken_off = asyncio.create_task(direct.run(slow, {"n": -1}))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await broken_off
        assert [tuple(row) for row in await direct.run(asked, {"n": number})] == [(number,)]


async def test_what_the_server_refuses_costs_no_connection(direct: Direct) -> None:
    whose = Statement(select(func.pg_backend_pid()))
    impossible = Statement(select(literal_column("1 / 0")))
    before = await direct.run(whose, {})
    with pytest.raises(asyncpg.DivisionByZeroError):
        await direct.run(impossible, {})
    assert await direct.run(whose, {}) == before


async def test_closing_waits_for_what_runs(postgres_url: str) -> None:
    database = Database(postgres_url)
    assert database.direct is not None
    slow = Statement(select(func.pg_sleep(0.2), bindparam("n", type_=Integer)))
    running = [asyncio.create_task(database.direct.run(slow, {"n": n})) for n in (1, 2)]
    await asyncio.sleep(0)
    await database.close()
    assert [row[1] for task in running for row in await task] == [1, 2]


async def test_connections_that_the_server_cut_are_made_anew(direct: Direct, postgres_url: str) -> None:
    statement = Statement(select(bindparam("n", type_=Integer)))
    other = await asyncpg.connect(postgres_url)
    try:
        # Often enough for each of the moments in which the connection has heard of its end, and not ended.
        for number in range(60):
            await until_answered(direct, statement, number)
            await other.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
            for _ in range(number % 6):
                await asyncio.sleep(0)
            await until_answered(direct, statement, number)
    finally:
        await other.close()


async def test_connections_that_the_server_cut_are_closed_without_a_word(postgres_url: str) -> None:
    database = Database(postgres_url)
    assert database.direct is not None
    await database.direct.run(Statement(select(bindparam("n", type_=Integer))), {"n": 1})
    other = await asyncpg.connect(postgres_url)
    try:
        await other.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        await database.close()
    finally:
        await other.close()


async def until_answered(direct: Direct, statement: Statement, number: int) -> None:
    """Ask until there is an answer: whoever asks while the connection ends is told to come again."""
    for _ in range(5):
        try:
            ((value,),) = await direct.run(statement, {"n": number})
        except RegistryUnavailable:
            continue
        assert value == number
        return
    raise AssertionError("it did not come back")


async def test_a_database_that_is_away_is_told_as_such() -> None:
    database = Database("postgresql://nobody@127.0.0.1:1/none")
    assert database.direct is not None
    with pytest.raises(RegistryUnavailable):
        await database.direct.run(Statement(select(bindparam("n", type_=Integer))), {"n": 1})
    await database.close()
