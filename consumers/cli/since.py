"""`--since`: from when on, as a person says it: `2h` ago, or a moment."""

import re
from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer

Since = Annotated[
    str | None,
    typer.Option(help="Only what is no older: 90s, 15m, 2h or 7d ago, or a moment, 2026-01-01T00:00:00Z."),
]

_AGO = re.compile(r"([0-9]{1,6})([smhd])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


def moment(since: str | None) -> str | None:
    """Write `--since` as the API takes it, RFC 3339; ends the command where it is neither."""
    if since is None:
        return None
    ago = _AGO.fullmatch(since.strip())
    try:
        if ago is not None:
            return (datetime.now(UTC) - timedelta(**{_UNITS[ago[2]]: int(ago[1])})).isoformat()
        given = datetime.fromisoformat(since.strip())
    except (ValueError, OverflowError):
        raise _refused(since) from None
    if given.tzinfo is None:
        raise typer.BadParameter(f"{since!r} has no offset; write it with one, such as {since.strip()}Z")
    return given.isoformat()


def _refused(since: str) -> typer.BadParameter:
    return typer.BadParameter(
        f"{since!r} is neither a time ago, such as 2h, nor a moment, such as 2026-01-01T00:00:00Z"
    )
