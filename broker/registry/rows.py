"""Rows as parameters: many rows or keys in one statement, whose text is the same whatever their number.

So each such statement is compiled once, prepared once by the server, costs one round trip, and knows no limit
of parameters. PostgreSQL takes an array for each column (unnest), SQLite one JSON text (json_each).
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from functools import cache, partial
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

from broker.registry.columns import Json, Utc, Words, clean


class Rows:
    """The shape of the rows that a statement takes: `source` selects them, `given` makes its parameters."""

    def __init__(self, dialect: str, columns: Sequence[Column[Any]]) -> None:
        self.names = [column.name for column in columns]
        self.source: Select[Any]
        self._writers: list[tuple[int, Callable[[Any], Any]]] | None
        if dialect == "sqlite":
            writers = [(place, _sqlite_writer(column.type)) for place, column in enumerate(columns)]
            self._writers = [(place, write) for place, write in writers if write is not None]
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
            self._writers = None
            arrays = [bindparam(f"given_{column.name}", type_=_array(column.type)) for column in columns]
            table = func.unnest(*arrays).table_valued(
                *(Column(column.name, column.type) for column in columns), name="each_row"
            )
            self.source = select(*table.render_derived().c)

    def given(self, rows: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
        """Make the parameters of the statement for some rows."""
        if self._writers is None:
            rows = list(rows)
            return {f"given_{name}": [row[name] for row in rows] for name in self.names}
        written = [[row[name] for name in self.names] for row in rows]
        for values in written:
            for place, write in self._writers:
                if (value := values[place]) is not None:
                    values[place] = write(value)
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


def _sqlite_writer(kind: TypeEngine[Any]) -> Callable[[Any], Any] | None:
    # The value as SQLite keeps it: a moment as text, JSON as text, a truth as 0 or 1. SQLAlchemy's way to the same
    # takes three calls for each value.
    dialect = _sqlite_dialect()
    match kind:
        case Words():
            return clean
        case Json():
            return partial(kind.process_bind_param, dialect=dialect)
        case Utc():
            return _moment
        case _:
            return kind.dialect_impl(dialect).bind_processor(dialect)


def _moment(value: datetime) -> str:
    return value.astimezone(UTC).replace(tzinfo=None).isoformat(" ", "microseconds")


@cache
def _sqlite_dialect() -> Dialect:
    from sqlalchemy.dialects import sqlite

    return sqlite.dialect()
