"""Every list that the API offers reads no more than a page, whatever is filtered for and whatever the tables hold."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import product
from typing import Any

import asyncpg
import pytest
from sqlalchemy import Connection, event

from broker.registry.pages import cursor_of

#: Rows of each table, by far more than a page; and how many of them were there when PostgreSQL counted them last.
ROWS, COUNTED = 30_000, 60
LIMIT = 50
#: A page has 51 rows, each perhaps on a block of its own, of up to four statuses.
MOST_BLOCKS = 200
#: Steps of SQLite's machine: up to 200 for each row.
MOST_STEPS = 20_000
#: Plans of PostgreSQL that read all that match before the first row is there, or all of a table.
WHOLE = {"Seq Scan", "Sort", "Bitmap Heap Scan", "Hash", "Materialize"}

HALFWAY = datetime.fromtimestamp(1_767_225_600 + ROWS // 2, UTC)
PATH = {"channelId": "ch_1", "userId": "u"}
#: What may be filtered for: what most rows have, what few and old ones have, what another channel has, and nothing.
FILTERS = {
    "status": ("pending", "delivered", "dead", "expired"),
    "webhookId": ("wh_busy", "wh_dead", "wh_old", "wh_elsewhere", "wh_none"),
    "stage": ("bot", "intake", "nowhere"),
    "channelId": ("ch_1", "ch_old", "ch_none"),
    "after": ("1", "9", "1000000"),
}
#: A cursor in the midst of each list.
DEEP = {
    "channels": cursor_of(HALFWAY, "m"),
    "webhooks": cursor_of(HALFWAY, "m"),
    "deliveries": cursor_of(HALFWAY, "m"),
    "dead-letters": cursor_of(ROWS // 2),
    "turns": cursor_of(ROWS // 2),
}

FILL = """
INSERT INTO channels (id, name, bot, verify_token, created_at) SELECT 'ch_' || i, 'n', '{}', 'v', AT FROM N;

INSERT INTO webhooks (id, channel_id, url, events, headers, secret, created_at)
SELECT 'wh_' || i, 'ch_1', 'http://x/', '[]', '{}', 's', AT FROM N;

INSERT INTO deliveries (id, webhook_id, channel_id, conversation_key, user_id, response_id, message_counter, status,
    attempt_count, created_at)
SELECT 'd' || i,
    CASE WHEN i <= 60 THEN 'wh_old' WHEN i % 10 = 0 THEN 'wh_elsewhere'
        WHEN i <= 15000 THEN 'wh_busy' ELSE 'wh_dead' END,
    CASE WHEN i > 60 AND i % 10 = 0 THEN 'ch_2' ELSE 'ch_1' END,
    'ch_1/' || (i % 100), 'u', 'r', i,
    CASE WHEN i % 3 = 0 AND i <= 60 THEN 'pending' WHEN i % 3 = 1 AND i <= 60 THEN 'dead'
        WHEN i <= 15000 THEN 'delivered' ELSE 'dead' END,
    1, AT FROM N;

INSERT INTO turns (message_id, conversation_key, channel_id, number, message, responses, last_counter, outcome,
    created_at)
SELECT 'm' || i, 'ch_1/u', 'ch_1', i, '{}',
    CASE WHEN i <= 9 THEN '[{"messageCounter":' || i || ',"id":"r","userId":"u","message":{},"inReplyTo":"m",' ||
        '"index":1,"count":1,"createdAt":"2026-01-01T00:00:00Z"}]' ELSE '[]' END,
    CASE WHEN i <= 9 THEN i ELSE 10 END, 'answered', AT FROM N;

INSERT INTO dead_letters (number, id, stage, reason, detail, channel_id, routing_key, headers, body, created_at)
SELECT i, 'l' || i,
    CASE WHEN i <= 60 AND i % 2 = 0 THEN 'intake' WHEN i <= 15000 THEN 'bot' ELSE 'broker' END, 'r', '',
    CASE WHEN i <= 60 AND i % 3 = 0 THEN 'ch_old' WHEN i <= 15000 THEN 'ch_1' ELSE 'ch_2' END,
    'k', '{}', BODY, AT FROM N
"""
TABLES = ("channels", "webhooks", "deliveries", "turns", "dead_letters")


def filling(first: int, last: int, dialect: str) -> Iterator[str]:
    """Make the statements that fill the tables with rows of these numbers."""
    if dialect == "sqlite":
        counting = f"SELECT {first} UNION ALL SELECT i + 1 FROM n WHERE i < {last}"
        numbers = f"(WITH RECURSIVE n (i) AS ({counting}) SELECT i FROM n)"
        at = "strftime('%Y-%m-%d %H:%M:%S.000000', 1767225600 + i, 'unixepoch')"
    else:
        numbers, at = f"generate_series({first}, {last}) AS i", "to_timestamp(1767225600 + i)"
    # A cast of PostgreSQL makes bytes of text; one of SQLite is a blob.
    body = "CAST('b' AS BLOB)" if dialect == "sqlite" else "CAST('b' AS bytea)"
    for statement in FILL.replace("BODY", body).split(";"):
        yield statement.replace("FROM N", f"FROM {numbers}").replace("AT", at)


async def fill_postgresql(url: str) -> None:
    """Fill the tables, and let PostgreSQL believe that they have hardly a row."""
    connection = await asyncpg.connect(url)
    try:
        for table in TABLES:
            await connection.execute(f"ALTER TABLE {table} SET (autovacuum_enabled = off)")
        for statement in filling(1, COUNTED, "postgresql"):
            await connection.execute(statement)
        await connection.execute("ANALYZE")
        for statement in filling(COUNTED + 1, ROWS, "postgresql"):
            await connection.execute(statement)
    finally:
        await connection.close()


def fill_sqlite(path: str) -> None:
    """Fill the tables."""
    connection = sqlite3.connect(path)
    with connection:
        for statement in filling(1, ROWS, "sqlite"):
            connection.execute(statement)
    connection.close()


@pytest.fixture
async def registry_url(database_url: str) -> str:
    """A database whose lists are long."""
    if database_url.startswith("sqlite"):
        await asyncio.to_thread(fill_sqlite, database_url.removeprefix("sqlite:///"))
    else:
        await fill_postgresql(database_url)
    return database_url


@dataclass
class Watch:
    """Explains each SELECT as it is asked, where it is asked, and keeps what is wrong with it."""

    faults: list[str] = field(default_factory=list)
    asked: int = 0
    _explaining: bool = False

    def look(self, connection: Connection, _: object, statement: str, parameters: Any, *rest: object) -> None:
        """Look at a statement that is about to be executed."""
        if self._explaining or not statement.lstrip("(").startswith("SELECT"):
            return
        self.asked += 1
        self._explaining = True
        try:
            if connection.dialect.name == "sqlite":
                found = self._of_sqlite(connection, statement, parameters)
            else:
                found = self._of_postgresql(connection, statement, parameters)
        finally:
            self._explaining = False
        self.faults += [f"{fault}: {statement} {parameters}" for fault in found]

    def _of_sqlite(self, connection: Connection, statement: str, parameters: Any) -> Iterator[str]:
        took = machine_steps(str(connection.engine.url.database), statement, parameters)
        if took > MOST_STEPS:
            yield f"{took} steps"

    def _of_postgresql(self, connection: Connection, statement: str, parameters: Any) -> Iterator[str]:
        explain = f"EXPLAIN (ANALYZE, BUFFERS, TIMING OFF, FORMAT JSON) {statement}"
        [plan] = connection.exec_driver_sql(explain, parameters).scalar_one()
        root = plan["Plan"]
        yield from (node for node in nodes(root) if node in WHOLE)
        blocks = root["Shared Hit Blocks"] + root["Shared Read Blocks"]
        if blocks > MOST_BLOCKS:
            yield f"{blocks} blocks"


def nodes(plan: dict[str, Any]) -> Iterator[str]:
    """List the kinds of a plan's steps."""
    yield plan["Node Type"]
    for each in plan.get("Plans", ()):
        yield from nodes(each)


def machine_steps(path: str, statement: str, parameters: Any) -> int:
    """Count in hundreds what SQLite does for a statement and all of its rows."""
    counted = 0

    def count() -> None:
        nonlocal counted
        counted += 100

    connection = sqlite3.connect(path)
    connection.set_progress_handler(count, 100)
    try:
        connection.execute(statement, parameters).fetchall()
    finally:
        connection.close()
    return counted


@pytest.fixture
async def watch(api) -> AsyncIterator[Watch]:
    """What the API asks of its database."""
    engine = api.parts.database.engine.sync_engine
    watching = Watch()
    event.listen(engine, "before_cursor_execute", watching.look)
    yield watching
    event.remove(engine, "before_cursor_execute", watching.look)


async def lists(api) -> dict[str, list[str]]:
    """Return the paths of all that the API lists, each with its filters, as its description has them."""
    description = await (await api.call("GET", "/openapi.json")).json()
    found = {}
    for path, operations in description["paths"].items():
        query = [
            each["name"] for each in operations.get("get", {}).get("parameters", ()) if each["in"] == "query"
        ]
        if "limit" in query:
            found[path] = [name for name in query if name != "limit"]
    return found


def requests(path: str, query: list[str]) -> Iterator[dict[str, str]]:
    """Combine all values of all filters, each at the first page and at a deep one."""
    filters = [name for name in query if name != "cursor"]
    cursors = (None, DEEP[path.rpartition("/")[2]]) if "cursor" in query else (None,)
    choices = [(None, *FILTERS[name]) for name in filters]
    for cursor, *values in product(cursors, *choices):
        asked = zip(("cursor", *filters), (cursor, *values), strict=True)
        yield {"limit": str(LIMIT)} | {name: value for name, value in asked if value is not None}


async def ask_all(api) -> int:
    """Ask for every list with every combination of filters, and return how many of the answers had a full page."""
    full = 0
    for path, query in (await lists(api)).items():
        for parameters in requests(path, query):
            answer = await api.call("GET", path.format(**PATH), params=parameters)
            assert answer.status == 200, await answer.text()
            full += len((await answer.json())["items"]) == LIMIT
    return full


async def test_a_list_reads_no_more_than_its_page_whatever_is_filtered_for(api, watch):
    assert len(await lists(api)) == 6
    assert await ask_all(api) > 20
    assert watch.asked > 100
    assert watch.faults == []
    if api.parts.database.dialect == "postgresql":
        # Now that it knows what is there, it believes that rows of all kinds lie evenly among each other.
        async with api.parts.database.write() as connection:
            await connection.exec_driver_sql("ANALYZE")
        await ask_all(api)
        assert watch.faults == []
