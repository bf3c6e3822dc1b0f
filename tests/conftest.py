"""Fixtures that every room of the tests may ask for: real servers, and databases of one's own on them."""

import asyncio
import gc
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from servers import postgres, rabbitmq
from servers.rabbitmq import clean
from servers.rabbitmq_node import Node

from broker.registry.migration import migrate
from broker.topology import Topology

# Both are times on the clock, and a machine that is busy with something else is no fault of what is tested.
settings.register_profile("busy machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy machine")


@pytest.fixture(autouse=True)
def no_pauses() -> None:
    """Keep this process from standing still for what all earlier tests left behind.

    The garbage collector takes 0.6 s and more for that late in a run, and a test that times answers would count it as
    time in which there was none. What is there when a test begins is looked at once, here, and then no more.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """Provide a PostgreSQL server for the whole run, as the URL of a user who may create databases."""
    with postgres.postgres_server() as url:
        yield url


@pytest.fixture(scope="session")
def postgres_template(postgres_server: str) -> Iterator[str]:
    """Provide the name of a migrated, empty database to copy: quicker than migrating each one."""
    with asyncio.Runner() as runner:
        fresh = postgres.fresh_database(postgres_server)
        url = runner.run(fresh.__aenter__())
        runner.run(migrate(url))
        yield url.rpartition("/")[2].partition("?")[0]
        runner.run(fresh.__aexit__(None, None, None))


@pytest.fixture
async def postgres_url(postgres_server: str, postgres_template: str) -> AsyncIterator[str]:
    """Provide a migrated PostgreSQL database of the test's own."""
    async with postgres.fresh_database(postgres_server, postgres_template) as url:
        yield url


@pytest.fixture
async def sqlite_url(tmp_path: Path) -> str:
    """Provide a migrated SQLite file of the test's own."""
    url = f"sqlite:///{tmp_path / 'registry.db'}"
    await migrate(url)
    return url


@pytest.fixture(params=["sqlite", "postgres"])
def database_url(request: pytest.FixtureRequest) -> str:
    """Provide a migrated database of the test's own, on each of the two in turn."""
    url: str = request.getfixturevalue(f"{request.param}_url")
    return url


@pytest.fixture(scope="session", name="rabbitmq")
def rabbitmq_node() -> Iterator[Node]:
    """Provide a RabbitMQ node for the whole run."""
    with rabbitmq.rabbitmq_node() as node:
        yield node


@pytest.fixture
async def amqp_url(rabbitmq: Node) -> str:
    """Provide the URL of the RabbitMQ node, on which nothing of Postbote is declared."""
    await clean(rabbitmq.url)
    return rabbitmq.url


@pytest.fixture
def topology() -> Topology:
    """Provide a small topology: few partitions are declared quickly."""
    return Topology(partitions=4)
