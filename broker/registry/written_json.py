"""A column of JSON that is handed over as it is written: whoever needs its values parses it."""

from sqlalchemy import Dialect, Text, TypeDecorator


class WrittenJson(TypeDecorator[bytes]):
    """The bytes of a JSON text, kept as text as `Json` keeps it. Nobody here checks that they are JSON."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: bytes | None, dialect: Dialect) -> str | None:
        """Write the text."""
        return None if value is None else value.decode()

    def process_result_value(self, value: str | None, dialect: Dialect) -> bytes | None:
        """Read the bytes."""
        return None if value is None else value.encode()
