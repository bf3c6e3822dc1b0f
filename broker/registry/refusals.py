"""Errors of a database at the start that an operator can mend: told as one sentence, with the next step."""

from types import TracebackType

from sqlalchemy.exc import DBAPIError

from broker.errors import PostboteError, RegistryError, SettingsError

#: PostgreSQL's codes (its manual, appendix A).
_NO_RIGHT, _NO_SUCH_TABLE = "42501", "42P01"
#: An unknown parameter, a value that it cannot have, one that cannot be set by a client.
_PARAMETERS = ("42704", "22023", "55P02")
#: SQLite's primary codes (https://www.sqlite.org/rescode.html): an error of SQL, a damaged file, no database.
_SQL, _DAMAGED, _NO_DATABASE = 1, 11, 26


class refusals_told:  # noqa: N801 - read as part of a with statement
    """Turns what a database refuses at the start into RegistryError or SettingsError, in one sentence."""

    def __enter__(self) -> None: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None and (told := _told(error)) is not None:
            raise told from error


def no_such_table(error: DBAPIError) -> bool:
    """Tell whether a statement failed because the database does not have its table."""
    return _state(error) == _NO_SUCH_TABLE or _code(error) == _SQL


def _told(error: BaseException) -> PostboteError | None:
    raised = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
    # SQLAlchemy's own wrapping puts a class name before the text.
    said = (str(raised.__cause__ or raised).strip() or type(raised).__name__).splitlines()[0]
    state, code = _state(error), _code(error)
    if type(raised).__name__ == "ClientConfigurationError":
        return SettingsError(f"POSTBOTE_DATABASE_URL cannot be used: {said}.")
    if state in _PARAMETERS and "parameter" in said:
        return SettingsError(
            f"PostgreSQL refuses a parameter of POSTBOTE_DATABASE_URL ({said}): correct it or leave it out."
        )
    if state == _NO_RIGHT:
        return RegistryError(
            f"PostgreSQL refuses ({said}): give this user the right, such as GRANT CREATE ON SCHEMA public, or make "
            "it the owner of the database."
        )
    if code in (_DAMAGED, _NO_DATABASE):
        return RegistryError(
            f"The registry's file cannot be read ({said}): name another with POSTBOTE_DATABASE_URL or "
            "POSTBOTE_DATA_DIR, or put a backup in its place."
        )
    if state is not None or code is not None:
        return RegistryError(f"The database refuses: {said}.")
    return None


def _state(error: BaseException) -> str | None:
    raised = error.orig if isinstance(error, DBAPIError) else error
    state = getattr(raised, "sqlstate", None)
    return state if isinstance(state, str) else None


def _code(error: BaseException) -> int | None:
    raised = error.orig if isinstance(error, DBAPIError) else error
    code = getattr(raised, "sqlite_errorcode", None)
    return code & 0xFF if isinstance(code, int) else None
