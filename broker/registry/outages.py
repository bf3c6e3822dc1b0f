"""Outages: which errors of a database mean that trying again later is right, and which are mistakes."""

from types import TracebackType

from sqlalchemy.exc import DBAPIError, InterfaceError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from broker.errors import RegistryUnavailable

#: PostgreSQL's classes of errors that mean "later" (its manual, appendix A): connection, resources, an
#: operator's intervention (shutting down, starting up, cancelled), a deadlock or serialization failure, a
#: refused login, an unknown database. An operator mends the last two, and no message is given up for them.
_LATER = ("08", "53", "57", "40", "28", "3D")


class outages_told:  # noqa: N801 - read as part of a with statement
    """Turns a database's absence into RegistryUnavailable, and leaves every other error as it is."""

    def __enter__(self) -> None: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None and is_outage(error):
            raise RegistryUnavailable(
                f"The database cannot be used at the moment: {_reason(error)}"
            ) from error


def is_outage(error: BaseException) -> bool:
    """Tell whether an error means that the database is away or overloaded, and later is another time."""
    if isinstance(error, PoolTimeout | OSError | TimeoutError):
        return True
    if isinstance(error, DBAPIError):
        if error.connection_invalidated:
            return True
        if isinstance(error, InterfaceError) and "closed" in str(error.orig):
            return True
    # SQLAlchemy wraps what statements raise, and leaves as it is what connecting raises.
    raised = error.orig if isinstance(error, DBAPIError) else error
    # The driver's own words, where SQLAlchemy is not in between; told by name, for it may not be imported.
    name = type(raised).__name__
    if name == "TargetServerAttributeNotMatched":
        # The server can only be read: a standby that is not yet, or no more, the first.
        return True
    if (name == "InterfaceError" and "closed" in str(raised)) or name == "InternalClientError":
        # Of the second kind is what it says of a connection that has been told of its end and has not ended
        # (https://github.com/MagicStack/asyncpg/issues/1069).
        return True
    state = getattr(raised, "sqlstate", None)
    if isinstance(state, str):
        return state.startswith(_LATER)
    code = getattr(raised, "sqlite_errorcode", None)
    if isinstance(code, int):
        from broker.registry.sqlite import LATER

        return code & 0xFF in LATER
    return False


def _reason(error: BaseException) -> str:
    raised = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
    # SQLAlchemy's own wrapping puts a class name before the text.
    words = str(raised.__cause__ or raised).strip() or "no answer in time"
    return words.splitlines()[0]
