"""Rows as parameters: many rows or keys in one statement, whose text is the same whatever their number.

So each such statement is compiled once, prepared once by the server, costs one round trip, and knows no limit
of parameters. PostgreSQL takes an array for each column (unnest), SQLite one JSON text (json_each).
"""

from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Any

from pydantic_core import to_json
from sqlalchemy import (
    ARRAY,
    Column,
    ColumnElement,
    Dialect,
    Select,
    Text,
    any_,
    bindparam,
    func,
    select,
    true,
)
from sqlalchemy.types import TypeEngine

from broker.registry.tables import Words, clean


class Rows:
    """The shape of the rows that a statement takes: `source` selects them, `given` makes its parameters."""

    def __init__(self, dialect: str, columns: Sequence[Column[Any]]) -> None:
        self.names = [column.name for column in columns]
        self.source: Select[Any]
        if dialect == "sqlite":
            self._writers = [_sqlite_writer(column.type) for column in columns]
            each = func.json_each(bindparam("given_rows", type_=Text())).table_valued(
                "value", name="each_row"
            )
            self.source = select(
                *(
                    func.json_extract(each.c.value, f"$[{index}]", type_=column.type).label(column.name)
                    for index, column in enumerate(columns)
                )
            ).where(true())  # SQLite cannot tell ON CONFLICT from a join's ON without it
        else:
            self._writers = []
            arrays = [bindparam(f"given_{column.name}", type_=_array(column.type)) for column in columns]
            table = func.unnest(*arrays).table_valued(
                *(Column(column.name, column.type) for column in columns), name="each_row"
            )
            self.source = select(*table.render_derived().c)

    def given(self, rows: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
        """Make the parameters of the statement for some rows."""
        if not self._writers:
            rows = list(rows)
            return {f"given_{name}": [row[name] for row in rows] for name in self.names}
        written = [
            [write(row[name]) for name, write in zip(self.names, self._writers, strict=True)] for row in rows
        ]
        return {"given_rows": to_json(written).decode()}


def one_of(dialect: str, column: Column[Any]) -> ColumnElement[bool]:
    """Compare a text column to the keys that `keys` makes the parameters of."""
    if dialect == "sqlite":
        each = func.json_each(bindparam("given_keys", type_=Text())).table_valued("value")
        return column.in_(select(each.c.value))
    return column == any_(bindparam("given_keys", type_=_array(column.type)))


def keys(dialect: str, wanted: Iterable[str]) -> dict[str, Any]:
    """Make the parameters of a statement with `one_of`."""
    unique = sorted({clean(key) for key in wanted})
    return {"given_keys": to_json(unique).decode() if dialect == "sqlite" else unique}


def _array(kind: TypeEngine[Any]) -> ARRAY[Any]:
    # A cast to varchar(64)[] would cut what is longer without a word. And the dimension is said, because a
    # JSON value that is a list would be taken for another one.
    return ARRAY(Words() if isinstance(kind, Words) else kind, dimensions=1)


def _sqlite_writer(kind: TypeEngine[Any]) -> Any:
    # The value as SQLite keeps it: a moment as text, JSON as text, a truth as 0 or 1.
    dialect = _sqlite_dialect()
    write = kind.dialect_impl(dialect).bind_processor(dialect)
    return write if write is not None else lambda value: value


@cache
def _sqlite_dialect() -> Dialect:
    from sqlalchemy.dialects import sqlite

    return sqlite.dialect()
