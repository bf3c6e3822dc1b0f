"""A PostgreSQL server for the test run: one that is named, else a container, else the machine's own programs.

`POSTBOTE_TEST_DATABASE_URL` names one whose user may create databases; `POSTBOTE_TEST_ENGINE=off` keeps the
tests from the Docker engine.
"""

import os
import socket
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from uuid import uuid4

import asyncpg
from servers.postgres_program import program_server
from sqlalchemy.engine import make_url

IMAGE = "postgres:17"
#: Durability is of no use to a database that ends with the tests, and slow.
FAST = ("fsync=off", "synchronous_commit=off", "full_page_writes=off", "max_connections=200")


@contextmanager
def postgres_server() -> Iterator[str]:
    """Provide a server, as the URL of a user who may create databases.

    Raises RuntimeError, which says what to install, where there is none.
    """
    named = os.environ.get("POSTBOTE_TEST_DATABASE_URL")
    if named:
        yield named
        return
    with ExitStack() as stack:
        url = None
        if engine_answers():
            try:
                url = stack.enter_context(_container())
            except Exception as error:
                sys.stderr.write(f"No {IMAGE} as a container ({error}); trying this machine's programs.\n")
        if url is None:
            url = stack.enter_context(program_server(FAST)).url
        yield url


def engine_answers() -> bool:
    """Tell whether a Docker engine may be used and answers within 2 s."""
    if os.environ.get("POSTBOTE_TEST_ENGINE") == "off":
        return False
    if not os.environ.get("DOCKER_HOST") and not Path("/var/run/docker.sock").exists():
        return False
    import docker

    path = os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock").removeprefix("unix://")
    if path.startswith("/"):
        # Asked here first: docker's client leaves its socket open where nobody listens.
        with socket.socket(socket.AF_UNIX) as probe:
            if probe.connect_ex(path):
                return False
    try:
        client = docker.from_env(timeout=2)
    except docker.errors.DockerException:
        return False
    try:
        return bool(client.ping())
    except Exception:
        return False
    finally:
        client.close()


@asynccontextmanager
async def fresh_database(server: str, template: str | None = None) -> AsyncIterator[str]:
    """Make a database, a copy of `template` where one is given, and drop it at the end; gives its URL."""
    name = f"postbote_{uuid4().hex[:12]}"
    admin = await asyncpg.connect(server, timeout=10)
    try:
        copied = f"CREATE DATABASE {name} TEMPLATE {template or 'template1'}"
        if admin.get_server_version() >= (15,):
            # Four times as fast as the way that is usual since version 15.
            copied += " STRATEGY file_copy"
        await admin.execute(copied, timeout=60)
        try:
            yield database_url(server, name)
        finally:
            await admin.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)", timeout=60)
    finally:
        await admin.close(timeout=10)


def database_url(server: str, name: str) -> str:
    """Return the URL of another database of the same server."""
    return make_url(server).set(database=name).render_as_string(hide_password=False)


@contextmanager
def _container() -> Iterator[str]:
    from testcontainers.community.postgres import PostgresContainer

    command = "postgres " + " ".join(f"-c {setting}" for setting in FAST)
    with PostgresContainer(IMAGE, driver=None).with_command(command) as container:
        yield container.get_connection_url()
