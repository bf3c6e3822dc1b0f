"""Statements that every message takes, given to PostgreSQL past SQLAlchemy: it compiles them, once, and no more.

Its own way to the driver and back takes 0.25 ms of CPU for a statement, and three times that where its code has left
the caches: more than the server takes for what a message needs.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import asyncpg
from sqlalchemy import ARRAY, ClauseElement, Dialect
from sqlalchemy.dialects.postgresql import asyncpg as dialects
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.types import TypeEngine

from broker.ending import END_S, to_its_end
from broker.registry.outages import outages_told, spends_connection

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
    """A few connections of its own, made by `connect` as they are needed; close it at the end.

    They are handed out here, and not by the driver's pool, since that takes as long as the statement's own way to the
    driver and back: 60 us, and 155 after a few ms of rest.
    """

    def __init__(
        self, connect: Callable[[], Awaitable[asyncpg.Connection]], *, wait_s: float, most: int
    ) -> None:
        self._connect = connect
        self._wait_s = wait_s
        self._most = most
        self._places = asyncio.Semaphore(most)
        #: Those that nobody uses, the one that was used last at the end.
        self._free: list[asyncpg.Connection] = []
        self._closed = False

    async def run(self, statement: Statement, given: Mapping[str, Any]) -> Sequence[Sequence[Any]]:
        """Run a statement as a transaction of its own, and return its rows as they come, without result types.

        Where it is cancelled, or takes too long, the statement has ended when this raises, written or not.
        Raises RegistryUnavailable while the database is away, and what the driver raises otherwise.
        """
        arguments = statement.arguments(given)
        with outages_told():
            await self._take_place()
            try:
                connection = await self._free_connection()
                keep = False
                try:
                    rows: Sequence[Sequence[Any]] = await connection.fetch(statement.text, *arguments)
                    keep = True
                except asyncpg.PostgresError as error:
                    # The server refused the statement, and is done with it.
                    keep = not spends_connection(error)
                    raise
                finally:
                    if keep and not self._closed:
                        self._free.append(connection)
                    else:
                        # A statement that was broken off is cancelled by the driver, and closing waits for its end:
                        # until then it may still be written.
                        await to_its_end(connection.close(timeout=END_S))
                return rows
            finally:
                self._places.release()

    async def close(self) -> None:
        """Wait for what is running, and close all connections; whoever comes after finds the database away."""
        try:
            async with asyncio.timeout(CLOSE_S):
                for _ in range(self._most):
                    await self._places.acquire()
                while self._free:
                    await self._free[-1].close()
                    self._free.pop()
        except (
            TimeoutError,
            OSError,
            asyncpg.PostgresError,
            asyncpg.InterfaceError,
            asyncpg.InternalClientError,
        ):
            # The server is gone, or a statement takes longer than that: there is nothing to say goodbye to.
            pass
        finally:
            self._closed = True
            for connection in self._free:
                connection.terminate()

    async def _take_place(self) -> None:
        if self._places.locked():
            async with asyncio.timeout(self._wait_s):
                await self._places.acquire()
        else:
            await self._places.acquire()

    async def _free_connection(self) -> asyncpg.Connection:
        while self._free:
            connection = self._free.pop()
            if not connection.is_closed():
                return connection
        return await self._connect()


def _writer_of(kind: TypeEngine[Any]) -> tuple[bool, _Writer | None]:
    many = isinstance(kind, ARRAY)
    one: Any = kind.item_type if isinstance(kind, ARRAY) else kind
    return many, one.dialect_impl(_DIALECT).bind_processor(_DIALECT)
