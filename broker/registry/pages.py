"""Pages: a listing read piece by piece, by an opaque cursor that says where the last piece ended."""

import base64
import binascii
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from pydantic_core import from_json, to_json
from sqlalchemy import Column, Row, Select, literal, tuple_

from broker.registry.records import Page

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
#: The end of the year 9999 in microseconds: no number in a cursor is greater.
_LATEST = 253_402_300_799_999_999


def cursor_of(*values: datetime | int | str) -> str:
    """Write a cursor: the sort key of the last item, in letters that are safe in a URL."""
    plain = [_micros(value) if isinstance(value, datetime) else value for value in values]
    return base64.urlsafe_b64encode(to_json(plain)).rstrip(b"=").decode()


def read_cursor(cursor: str, *kinds: type) -> list[Any]:
    """Read a cursor's values back; raises ValueError where it is none of this listing's."""
    try:
        padded = cursor.encode("ascii") + b"=" * (-len(cursor) % 4)
        values = from_json(base64.b64decode(padded, altchars=b"-_", validate=True))
    except (ValueError, UnicodeError, binascii.Error):
        raise ValueError("this is no cursor; take the nextCursor of the page before") from None
    expected = [int if kind is datetime else kind for kind in kinds]
    if (
        not isinstance(values, list)
        or len(values) != len(kinds)
        or any(type(value) is not kind for value, kind in zip(values, expected, strict=True))
        or any(isinstance(value, int) and not 0 <= value <= _LATEST for value in values)
        # PostgreSQL's text cannot hold it, so it is in no cursor of ours.
        or any(isinstance(value, str) and "\x00" in value for value in values)
    ):
        raise ValueError("this cursor belongs to another listing; take the nextCursor of the page before")
    return [
        _EPOCH + timedelta(microseconds=value) if kind is datetime else value
        for value, kind in zip(values, kinds, strict=True)
    ]


def newest_first(
    query: Select[Any], at: Column[Any], key: Column[Any], cursor: str | None, limit: int
) -> Select[Any]:
    """Order a query by time and key, newest first, from a cursor on, with one row more than the page has."""
    if cursor is not None:
        moment, name = read_cursor(cursor, datetime, str)
        query = query.where(tuple_(at, key) < tuple_(literal(moment, at.type), literal(name, key.type)))
    return query.order_by(at.desc(), key.desc()).limit(limit + 1)


def page_of(
    rows: Sequence[Row[Any]], limit: int, item: Callable[[Row[Any]], Any], cursor: Callable[[Row[Any]], str]
) -> Page:
    """Make a page of the rows of a query that asked for one more than the page has."""
    more = len(rows) > limit
    rows = rows[:limit]
    return Page([item(row) for row in rows], cursor(rows[-1]) if more else None)


def _micros(moment: datetime) -> int:
    return (moment - _EPOCH) // timedelta(microseconds=1)
