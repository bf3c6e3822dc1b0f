"""The API as the command line calls it: one request, its JSON, and errors in words."""

import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from json import dumps
from pathlib import Path
from typing import Any, NoReturn

import aiohttp
from pydantic_core import from_json

from broker.errors import PostboteError
from broker.server_urls import shown
from broker.settings import Settings
from consumers.credentials import ADMIN_TOKEN_FILE, DEMO_TOKEN_FILE
from consumers.redaction import Redactor

TIMEOUT_S = 30.0


class CallFailed(PostboteError):
    """The API did not do what was asked. `status` is its answer's, or None where none came."""

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class Answer(dict[str, Any]):
    """An answer's JSON object; a field that Postbote always gives and that is not there raises CallFailed."""

    def __missing__(self, name: str) -> NoReturn:
        raise CallFailed(
            f"The answer has no {name!r}: what listens there is not Postbote, or is of another version. "
            "Set POSTBOTE_URL to where Postbote listens."
        )


class Client:
    """Calls the API of a running Postbote, as its administrator or as a channel's client."""

    def __init__(self, session: aiohttp.ClientSession, settings: Settings) -> None:
        self._session = session
        self._settings = settings
        self.base = base_url(settings)
        #: For error messages: the address may hold a user with a password, for a proxy that stands before the API.
        self.shown = shown(self.base)

    async def call(
        self,
        method: str,
        path: str,
        *,
        token: str,
        json: object = None,
        params: Mapping[str, str] | None = None,
    ) -> Answer:
        """Call, and return the answer's JSON object, empty for a 204; raises CallFailed with what the API said."""
        try:
            body = None if json is None else dumps(json, allow_nan=False)
        except ValueError:
            raise CallFailed("A number that is given is infinite or none (nan): give another.") from None
        try:
            async with self._session.request(
                method,
                self.base + path,
                data=body,
                params=params,
                headers={"Authorization": f"Bearer {token}", "Content-Type": "application/json"},
            ) as answer:
                status, raw = answer.status, await answer.read()
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            why = Redactor()(str(error)) or type(error).__name__
            raise CallFailed(
                f"Postbote does not answer at {self.shown} ({why}). Start it "
                "with `postbote run`, or set POSTBOTE_URL to where it listens."
            ) from None
        try:
            said = from_json(raw) if raw else {}
        except ValueError:
            said = None
        if status >= 400:
            raise CallFailed(_problem(self.shown, status, said), status)
        if not isinstance(said, dict):
            raise CallFailed(
                f"What answers at {self.shown} is not Postbote. Set POSTBOTE_URL to where Postbote listens."
            )
        return Answer(said)

    async def admin(self, method: str, path: str, json: object = None, **params: str | None) -> Answer:
        """Call as the administrator; parameters that are None are left out."""
        given = {name: value for name, value in params.items() if value is not None}
        return await self.call(method, path, token=admin_token(self._settings), json=json, params=given)

    async def everything(self, path: str, **params: str | None) -> list[dict[str, Any]]:
        """Read all pages of a listing."""
        items: list[dict[str, Any]] = []
        cursor: str | None = None
        while True:
            page = await self.admin("GET", path, cursor=cursor, limit="200", **params)
            items += page["items"]
            cursor = page["nextCursor"]
            if cursor is None:
                return items


@asynccontextmanager
async def open_client(settings: Settings) -> AsyncIterator[Client]:
    """Open a client of the API."""
    timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
    async with aiohttp.ClientSession(timeout=timeout, raise_for_status=False) as session:
        yield Client(session, settings)


def base_url(settings: Settings) -> str:
    """Tell where the API is: POSTBOTE_URL, or the address that a process with these settings listens on.

    Raises CallFailed where POSTBOTE_URL is no address of HTTP.
    """
    given = os.environ.get("POSTBOTE_URL")
    if given:
        base = given.strip().rstrip("/")
        if not base.startswith(("http://", "https://")):
            raise CallFailed(
                "POSTBOTE_URL has to begin with http:// or https://, such as http://127.0.0.1:8080: correct it."
            )
        return base
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.host, settings.host)  # noqa: S104
    return f"http://{f'[{host}]' if ':' in host else host}:{settings.port}"


def admin_token(settings: Settings) -> str:
    """Return the administrator's token; raises CallFailed where there is none to be found."""
    if settings.admin_token is not None:
        return settings.admin_token.get_secret_value()
    return _read(
        settings.data_dir / ADMIN_TOKEN_FILE,
        "No admin token: set POSTBOTE_ADMIN_TOKEN, or run this where Postbote keeps its data "
        "(POSTBOTE_DATA_DIR).",
    )


def access_token(settings: Settings, channel: str, given: str | None) -> str:
    """Return a channel's access token; that of the demo channel is kept in a file."""
    if given is not None:
        return given.strip()
    hint = "Give the channel's access token with --token or POSTBOTE_ACCESS_TOKEN."
    if channel != "demo":
        raise CallFailed(hint)
    return _read(
        settings.data_dir / DEMO_TOKEN_FILE, hint + " There is no demo channel here: `make run` makes one."
    )


def _read(path: Path, otherwise: str) -> str:
    try:
        return path.read_text().strip()
    except OSError as error:
        raise CallFailed(f"{otherwise} ({path}: {error.strerror})") from None
    except UnicodeDecodeError:
        raise CallFailed(f"{otherwise} ({path}: no text)") from None


def _problem(base: str, status: int, body: object) -> str:
    if not isinstance(body, dict):
        return (
            f"{base} answered {status}, and not as Postbote does. Set POSTBOTE_URL to where Postbote listens."
        )
    said = str(body.get("detail") or body.get("title") or f"The API answered {status}.")
    faults = body.get("errors")
    told = [_fault(fault) for fault in faults if isinstance(fault, dict)] if isinstance(faults, list) else []
    return said + "".join(told)


def _fault(fault: dict[str, object]) -> str:
    # What answers may be anything, not only Postbote.
    place = fault.get("loc")
    where = ".".join(str(part) for part in place) if isinstance(place, list) else str(place)
    return f"\n  {where}: {fault.get('msg')}"
