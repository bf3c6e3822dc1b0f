"""Outages: which errors of a database mean that trying again later is right, and which are mistakes."""

import asyncio
from types import TracebackType

from sqlalchemy.exc import DBAPIError, InterfaceError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from broker.errors import RegistryUnavailable

#: PostgreSQL's classes and codes of errors that mean "later" (its manual, appendix A): connection, resources (a full
#: disk, no memory, too many connections), an operator's intervention (shutting down, starting up, cancelled), the
#: system below (input and output, lost files), a deadlock or serialization failure, a lock that was not to be had, a
#: server that takes no writes (a standby after a failover), a transaction that was ended for idling, a refused login,
#: an unknown database, tables or their keys that are not there while a dump is restored. An operator mends the last
#: three, and no message is given up for them. All other classes are of what was asked (values, constraints, names),
#: and asking again does not help.
_LATER = ("08", "53", "57", "58", "40", "55P03", "25006", "25P03", "25P04", "28", "3D", "42P01", "42P10")
#: Those after which the same connection says the same again, while a new one may lead to another server: the
#: connection's own end, an operator's intervention but for one statement that was cancelled, and no writes.
_OF_THE_CONNECTION = ("08", "57P", "25006", "25P03", "25P04")
#: What asyncpg raises of a connection that it cannot use, where that is no error of the server's: "closed" says which
#: of the first kind. Of the second is what it says of a connection that has been told of its end and has not ended
#: (https://github.com/MagicStack/asyncpg/issues/1069), and of servers none of which is as the URL asks for.
_CLOSED, _UNUSABLE = "InterfaceError", "InternalClientError"


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
    raised = _raised(error)
    # Told by name, for the driver may not be imported.
    names = {kind.__name__ for kind in type(raised).__mro__}
    if (_CLOSED in names and "closed" in str(raised)) or _UNUSABLE in names:
        return True
    state = getattr(raised, "sqlstate", None)
    if isinstance(state, str):
        return state.startswith(_LATER)
    code = getattr(raised, "sqlite_errorcode", None)
    if isinstance(code, int):
        from broker.registry.sqlite import LATER

        return code & 0xFF in LATER
    return False


def spends_connection(error: BaseException) -> bool:
    """Tell whether the connection on which an error was raised is of no use any more.

    Either the server says the same again on it, or nobody knows what became of the statement.
    """
    if isinstance(error, asyncio.CancelledError | TimeoutError):
        return True
    state = getattr(_raised(error), "sqlstate", None)
    return isinstance(state, str) and state.startswith(_OF_THE_CONNECTION)


def _raised(error: BaseException) -> BaseException:
    # SQLAlchemy wraps what statements raise, and leaves as it is what connecting raises.
    return error.orig if isinstance(error, DBAPIError) and error.orig is not None else error


def _reason(error: BaseException) -> str:
    raised = _raised(error)
    # SQLAlchemy's own wrapping puts a class name before the text.
    words = str(raised.__cause__ or raised).strip() or "no answer in time"
    return words.splitlines()[0]
