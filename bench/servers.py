"""The servers of a benchmark: RabbitMQ, PostgreSQL and nginx, private to it, and set as in production.

The nodes are those that the tests use. PostgreSQL is on disk here, with its usual durability.
"""

import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from secrets import token_hex

import asyncpg
from servers.postgres import database_url
from servers.postgres_program import PostgresProgram, find_programs
from servers.process import free_port
from servers.rabbitmq_program import ProgramNode, program_node

from bench.receiver import Nginx

#: Durability as PostgreSQL has it from the start; connections for many workers.
POSTGRES_SETTINGS = ("max_connections=200", "shared_buffers=256MB", "max_wal_size=4GB")


@dataclass(frozen=True)
class Servers:
    """What all benchmarks of a run share."""

    rabbitmq: ProgramNode
    postgres: PostgresProgram
    folder: Path

    def vhost(self) -> str:
        """Make a virtual host of a benchmark's own; returns its URL."""
        name = f"bench-{token_hex(4)}"
        self.rabbitmq.ctl("add_vhost", name)
        self.rabbitmq.ctl("set_permissions", "-p", name, "guest", ".*", ".*", ".*")
        return self.rabbitmq.url + name

    @asynccontextmanager
    async def database(self) -> AsyncIterator[str]:
        """Make an empty database of a benchmark's own, and drop it at the end; gives its URL."""
        name = f"bench_{token_hex(4)}"
        await self._command(f"CREATE DATABASE {name}")
        try:
            yield database_url(self.postgres.url, name)
        finally:
            await self._command(f"DROP DATABASE {name} WITH (FORCE)")

    async def checkpoint(self) -> None:
        """Write what earlier benchmarks left to write, so that this one does not pay for it."""
        await self._command("CHECKPOINT")

    @contextmanager
    def nginx(self) -> Iterator[Nginx]:
        """Run a receiver: nginx with one worker that answers 200 and logs what came."""
        with tempfile.TemporaryDirectory(dir=self.folder) as folder:
            receiver = Nginx(Path(folder), free_port())
            try:
                yield receiver
            finally:
                receiver.end()

    async def _command(self, sql: str) -> None:
        connection = await asyncpg.connect(self.postgres.url, timeout=10)
        try:
            await connection.execute(sql, timeout=120)
        finally:
            await connection.close(timeout=10)


@contextmanager
def servers() -> Iterator[Servers]:
    """Run the servers; raises RuntimeError, which says what to install, where one is missing."""
    if shutil.which("nginx") is None:
        raise RuntimeError("The benchmarks need nginx as a receiver; on Debian: apt-get install nginx-light")
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="postbote-bench-")))
        # The database's own user reaches its files through this folder.
        folder.chmod(0o755)
        place = folder / "postgres"
        place.mkdir()
        postgres = PostgresProgram(find_programs(), place, POSTGRES_SETTINGS)
        stack.callback(postgres.kill)
        yield Servers(stack.enter_context(program_node()), postgres, folder)
