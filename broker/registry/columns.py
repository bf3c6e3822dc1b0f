"""The kinds of columns that the registry's tables have, each kept exactly by both databases."""

import json
from datetime import UTC, datetime
from typing import Any

from pydantic_core import PydanticSerializationError, from_json, to_json
from sqlalchemy import BigInteger, DateTime, Dialect, Integer, String, Text, TypeDecorator
from sqlalchemy.types import TypeEngine


class Json(TypeDecorator[Any]):
    """JSON kept as compact text: exact, fast, and without PostgreSQL's refusal of U+0000 in jsonb."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: Any | None, dialect: Dialect) -> str | None:
        """Write a value as JSON; a lone surrogate, which UTF-8 has no bytes for, becomes U+FFFD."""
        if value is None:
            return None
        try:
            return to_json(value).decode()
        except PydanticSerializationError:
            return clean(json.dumps(value, ensure_ascii=False, separators=(",", ":")))

    def process_result_value(self, value: str | None, dialect: Dialect) -> Any | None:
        """Read it back."""
        return None if value is None else from_json(value)


class Words(TypeDecorator[str]):
    """Text of at most `length` characters, or of any length; what PostgreSQL cannot keep becomes U+FFFD.

    That is U+0000 and lone surrogates. Nothing that is written is refused for them, and whoever asks for a
    name that holds one finds nothing.
    """

    impl = Text
    cache_ok = True

    def __init__(self, length: int | None = None) -> None:
        super().__init__()
        self.length = length

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """Return VARCHAR or TEXT."""
        return Text() if self.length is None else String(self.length)

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        """Write text."""
        return value if value is None else clean(value)


def clean(value: str) -> str:
    """Replace in a text what PostgreSQL cannot keep."""
    try:
        value.encode()
    except UnicodeEncodeError:
        value = value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return value.replace("\x00", "\N{REPLACEMENT CHARACTER}")


class Utc(TypeDecorator[datetime]):
    """A moment in UTC, also on SQLite, which knows no time zones."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Write a moment, which has to know its time zone."""
        if value is None or dialect.name != "sqlite":
            return value
        return value.astimezone(UTC).replace(tzinfo=None)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Read it back, in UTC."""
        return (
            value
            if value is None
            else value.replace(tzinfo=UTC)
            if value.tzinfo is None
            else value.astimezone(UTC)
        )


#: A counting primary key: SQLite counts only in columns declared INTEGER.
Counting = BigInteger().with_variant(Integer, "sqlite")
