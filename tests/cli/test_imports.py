"""A process imports what it is made of and nothing else: it starts sooner, and holds less."""

import subprocess
import sys

import pytest

EMBEDDED = "consumers.composition.whole, broker.embedded.broker, broker.registry.sqlite"
SERVERS = "broker.rabbitmq.broker, broker.registry.postgresql"


@pytest.mark.parametrize(
    ("modules", "not_needed"),
    [
        (EMBEDDED, {"aio_pika", "asyncpg", "alembic", "jinja2", "sqlalchemy.dialects.postgresql"}),
        (f"consumers.composition.api, {SERVERS}", {"sqlite3", "alembic", "jinja2", "consumers.bot_worker"}),
        (f"consumers.composition.bot, {SERVERS}", {"sqlite3", "alembic", "aiohttp", "broker.api"}),
        (
            f"consumers.composition.deliver, {SERVERS}",
            {"sqlite3", "alembic", "aiohttp_pydantic", "broker.api"},
        ),
    ],
    ids=["run", "api", "bot", "deliver"],
)
def test_what_a_process_does_not_need_is_not_imported(modules: str, not_needed: set[str]) -> None:
    program = (
        f"import sys, consumers.cli.main as main; main.processes(); import {modules}; print(*sys.modules)"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    assert (not_needed | {"rich", "pygments"}) & set(ran.stdout.split()) == set()
