"""Statements that every message takes, given to PostgreSQL past SQLAlchemy: it compiles them, once, and no more.

Its own way to the driver and back takes 0.25 ms of CPU for a statement, and three times that where its code has left
the caches: more than the server takes for what a message needs.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import asyncpg
from sqlalchemy import ARRAY, ClauseElement, Dialect
from sqlalchemy.dialects.postgresql import asyncpg as dialects
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.types import TypeEngine

from broker.registry.outages import outages_told

#: How long the connections may take to be closed in an orderly way, in seconds.
CLOSE_S = 2.0
_DIALECT: Dialect = dialects.dialect()  # type: ignore[no-untyped-call]
_Writer = Callable[[Any], Any]


class Statement:
    """A statement as PostgreSQL takes it; made once, given values often."""

    def __init__(self, statement: ClauseElement) -> None:
        compiled = statement.compile(dialect=_DIALECT)
        assert isinstance(compiled, SQLCompiler)
        self.text = str(compiled)
        self._fixed = compiled.params
        self._writers = [
            (name, *_writer_of(compiled.binds[name].type)) for name in compiled.positiontup or ()
        ]

    def arguments(self, given: Mapping[str, Any]) -> list[Any]:
        """Put values in the order of the statement's parameters, as the driver takes them."""
        made = []
        for name, many, write in self._writers:
            value = given[name] if name in given else self._fixed[name]
            if write is not None:
                value = [write(each) for each in value] if many else write(value)
            made.append(value)
        return made


class Direct:
    """A few connections to PostgreSQL of its own. Opens them as they are needed; close it at the end."""

    def __init__(self, dsn: str, *, setup: str, connect_s: float, statement_s: float, most: int) -> None:
        self._connect_s = connect_s

        async def set_up(connection: asyncpg.Connection) -> None:
            await connection.execute(setup)

        async def keep(_: asyncpg.Connection) -> None:
            """Leave a connection as it is: nothing that runs here changes its settings."""

        self._make = lambda: asyncpg.create_pool(
            dsn,
            min_size=0,
            max_size=most,
            max_inactive_connection_lifetime=0,
            timeout=connect_s,
            command_timeout=statement_s,
            init=set_up,
            reset=keep,
        )
        self._pool: asyncpg.Pool | None = None
        self._opening = asyncio.Lock()

    async def run(self, statement: Statement, given: Mapping[str, Any]) -> Sequence[Sequence[Any]]:
        """Run a statement as a transaction of its own, and return its rows as they come, without result types.

        Raises RegistryUnavailable while the database is away, and what the driver raises otherwise.
        """
        with outages_told():
            pool = self._pool or await self._opened()
            async with pool.acquire(timeout=self._connect_s) as connection:
                try:
                    rows: Sequence[Sequence[Any]] = await connection.fetch(
                        statement.text, *statement.arguments(given)
                    )
                except asyncpg.InternalClientError:
                    # It is out of step, and would be handed out again.
                    connection.terminate()
                    raise
                return rows

    async def close(self) -> None:
        """Close all connections."""
        if self._pool is None:
            return
        try:
            async with asyncio.timeout(CLOSE_S):
                await self._pool.close()
        except TimeoutError:
            self._pool.terminate()

    async def _opened(self) -> asyncpg.Pool:
        async with self._opening:
            if self._pool is None:
                self._pool = await self._make()  # type: ignore[no-untyped-call]
            return self._pool


def _writer_of(kind: TypeEngine[Any]) -> tuple[bool, _Writer | None]:
    many = isinstance(kind, ARRAY)
    one: Any = kind.item_type if isinstance(kind, ARRAY) else kind
    return many, one.dialect_impl(_DIALECT).bind_processor(_DIALECT)
