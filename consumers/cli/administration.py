"""What the administrator's commands have in common: one call, all pages, one item shown.

The API's client is imported where a call is made, so that `--help` does not wait for it.
"""

from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

from consumers.cli.output import call, show_fields, show_json


def admin(method: str, path: str, body: object = None, **params: str | None) -> dict[str, Any]:
    """Call the API as the administrator, and return its answer."""
    from broker.settings import read_settings
    from consumers.cli.client import open_client

    async def work() -> dict[str, Any]:
        async with open_client(read_settings()) as client:
            return await client.admin(method, path, body, **params)

    return call(work())


def everything(path: str) -> list[dict[str, Any]]:
    """Read all pages of a listing."""
    from broker.settings import read_settings
    from consumers.cli.client import open_client

    async def work() -> list[dict[str, Any]]:
        async with open_client(read_settings()) as client:
            return await client.everything(path)

    return call(work())


def piece_by_piece(path: str, body: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Post what is done in pieces, and go on until the answer names no further one."""
    cursor: str | None = None
    while True:
        done = admin("POST", path, body if cursor is None else {**body, "cursor": cursor})
        yield done
        cursor = done["nextCursor"]
        if cursor is None:
            return


def segment(value: str) -> str:
    """Write a value as one segment of a path."""
    return quote(value, safe="")


def show_item(item: dict[str, Any], as_json: bool) -> None:
    """Print an item, as lines or as JSON."""
    if as_json:
        show_json(item)
    else:
        show_fields(item)
