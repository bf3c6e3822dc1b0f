"""Readiness: what /readyz says is at most a second old, costs no more for many who ask, and is true."""

import asyncio
import json
from typing import Any

import asyncpg
import pytest
from sqlalchemy import text

from broker.api import health
from broker.api.health import Readiness


class Counted:
    """A part that counts how often it is checked, and takes a moment for it."""

    def __init__(self) -> None:
        self.checks = 0
        self.error: Exception | None = None

    async def check(self) -> None:
        self.checks += 1
        await asyncio.sleep(0.01)
        if self.error is not None:
            raise self.error

    check_ready = check


@pytest.fixture
def registry_url(database_url: str) -> str:
    """Each database in turn."""
    return database_url


async def test_all_who_ask_within_a_second_share_one_check(monkeypatch):
    broker, database = Counted(), Counted()
    readiness = Readiness(broker, database)  # type: ignore[arg-type]
    answers = await asyncio.gather(*(readiness.checks() for _ in range(200)))
    answers += [await readiness.checks() for _ in range(200)]
    assert answers == [{"broker": "ok", "database": "ok"}] * 400
    assert (broker.checks, database.checks) == (1, 1)
    monkeypatch.setattr(health, "BELIEVED_S", 0.0)
    readiness = Readiness(broker, database)  # type: ignore[arg-type]
    await readiness.checks()
    database.error = OSError("secret")
    assert await readiness.checks() == {"broker": "ok", "database": "OSError"}


async def test_who_gives_up_does_not_take_the_check_from_the_others():
    readiness = Readiness(Counted(), Counted())  # type: ignore[arg-type]
    first, second = asyncio.create_task(readiness.checks()), asyncio.create_task(readiness.checks())
    await asyncio.sleep(0)
    first.cancel()
    assert (await second)["broker"] == "ok"


async def test_many_who_ask_write_nothing_to_the_disk(serve):
    broker, database = Counted(), Counted()
    api = await serve(broker=broker, database=database)
    for _ in range(50):
        assert (await api.http.get("/readyz")).status == 200
    assert broker.checks <= 2
    assert database.checks <= 2


async def said_of_the_database(api: Any) -> str:
    """Ask an API that has not been asked before; the broker is well."""
    answer = await api.http.get("/readyz")
    assert answer.status == 503
    checks = (await answer.json())["checks"]
    assert checks["broker"] == "ok"
    return str(checks["database"])


async def test_a_database_that_is_well_is_ready(serve):
    assert await (await (await serve()).http.get("/readyz")).json() == {
        "status": "ready",
        "checks": {"broker": "ok", "database": "ok"},
    }


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("DROP TABLE alembic_version", "the schema is missing"),
        ("UPDATE alembic_version SET version_num = '0001'", "the schema is 0001"),
    ],
)
async def test_a_database_without_this_versions_schema_is_not_ready(serve, parts, change, said):
    async with parts.database.write() as connection:
        await connection.execute(text(change))
    found = await said_of_the_database(await serve())
    assert found.startswith(said)
    assert "postbote migrate" in found


async def test_a_database_that_takes_no_writes_is_not_ready(serve, parts):
    api = await serve()
    if parts.database.dialect == "sqlite":
        # As with a file that was mounted read-only: what reads goes on.
        async with parts.database.read() as connection:
            await connection.execute(text("PRAGMA query_only = ON"))
        assert await said_of_the_database(api) == "RegistryUnavailable"
    else:
        connection = await asyncpg.connect(parts.settings.database)
        name = await connection.fetchval("SELECT current_database()")
        await connection.execute(f'ALTER DATABASE "{name}" SET default_transaction_read_only = on')
        await connection.close()
        assert await said_of_the_database(api) == "read-only"
    assert json.dumps(await (await api.http.get("/healthz")).json())
