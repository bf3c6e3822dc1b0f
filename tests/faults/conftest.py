"""Fixtures of the fault tests: a broker and a database of their own, and a stage on them for each test."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from broker_place import add_vhost
from database_place import command, database_of_its_own
from report import REPORT
from servers.postgres import database_url
from servers.postgres_program import SURVIVES_A_CRASH, PostgresProgram, program_server
from servers.rabbitmq_program import ProgramNode, program_node
from stage import Stage, staged

from broker.registry.migration import migrate


@pytest.fixture(scope="session")
def node() -> Iterator[ProgramNode]:
    """Provide a RabbitMQ node that a test may break; whoever kills it starts it again."""
    with program_node() as started:
        yield started


@pytest.fixture
def vhost(node: ProgramNode) -> str:
    """Provide a virtual host of the test's own: RabbitMQ 3.10 does not bear names that are used again."""
    if not node.running:
        node.start()
    return add_vhost(node)


@pytest.fixture(scope="session")
def fault_postgres() -> Iterator[PostgresProgram]:
    """Provide a PostgreSQL server that a test may break; whoever stops it starts it again."""
    with program_server(SURVIVES_A_CRASH) as server:
        yield server


@pytest.fixture(scope="session")
def fault_template(fault_postgres: PostgresProgram) -> str:
    """Provide the name of a migrated, empty database on it."""
    with asyncio.Runner() as runner:
        runner.run(command(fault_postgres, "CREATE DATABASE postbote_template"))
        runner.run(migrate(database_url(fault_postgres.url, "postbote_template")))
    return "postbote_template"


@pytest.fixture
async def fault_database(fault_postgres: PostgresProgram, fault_template: str) -> AsyncIterator[str]:
    """Provide a migrated database of the test's own."""
    async with database_of_its_own(fault_postgres, fault_template) as url:
        yield url


@pytest.fixture
async def stage(node: ProgramNode, vhost: str, fault_database: str, tmp_path: Path) -> AsyncIterator[Stage]:
    """Set a stage; nothing is started yet."""
    async with staged(node.url + vhost, fault_database, tmp_path) as set_up:
        yield set_up


@pytest.fixture
async def untroubled(
    node: ProgramNode,
    fault_postgres: PostgresProgram,
    fault_template: str,
    tmp_path: Path,
) -> AsyncIterator[Stage]:
    """Set a second stage beside the first: the same deployment, with nothing that hangs."""
    vhost = add_vhost(node)
    folder = tmp_path / "untroubled"
    folder.mkdir()
    async with (
        database_of_its_own(fault_postgres, fault_template) as url,
        staged(node.url + vhost, url, folder) as stage,
    ):
        yield stage


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the table of faults."""
    if REPORT.verdicts:
        terminalreporter.section("what came of each fault")
        for line in (*REPORT.table(), *REPORT.notes()):
            terminalreporter.write_line(line)
