"""Problems: every error is answered as RFC 9457 has it, and none shows our insides."""

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any
from uuid import uuid4

import structlog
from aiohttp import web
from pydantic import ValidationError
from pydantic_core import to_json

from broker.errors import BrokerUnavailable, RegistryUnavailable, Unpublishable

log = structlog.get_logger()

#: Faults of one request that are listed; a body can have as many as it has bytes.
MOST_FAULTS = 20
#: Characters kept of a fault's message and of each part of its place, which may be a key of the sender's.
LONGEST_PART = 200
RETRY_AFTER_S = 1
PROBLEM_JSON = "application/problem+json"


class Problem(Exception):
    """An answer that is an error: a status from 400 on, and what happened and what to do in words."""

    def __init__(
        self,
        status: int,
        detail: str,
        *,
        headers: Mapping[str, str] | None = None,
        **members: Any,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.headers = dict(headers or {})
        self.members = members

    @property
    def body(self) -> bytes:
        """The body: type about:blank, so the title is the status' own (RFC 9457, section 4.2.1)."""
        return to_json({
            "type": "about:blank",
            "title": HTTPStatus(self.status).phrase,
            "status": self.status,
            "detail": self.detail,
            **self.members,
        })  # fmt: skip

    def response(self) -> web.Response:
        """Write the answer."""
        response = web.Response(
            status=self.status, body=self.body, content_type=PROBLEM_JSON, headers=self.headers
        )
        if "Connection" in self.headers:
            response.force_close()
        return response


def not_found(what: str) -> Problem:
    """Say that there is no such thing; `what` is a noun with its article."""
    return Problem(404, f"There is no such {what}.")


def unauthorized(detail: str) -> Problem:
    """Say that a bearer token is missing or wrong (RFC 6750, section 3)."""
    return Problem(401, detail, headers={"WWW-Authenticate": 'Bearer realm="postbote"'})


def unavailable(detail: str, **members: Any) -> Problem:
    """Say that it cannot be done now, and that trying again in a second is right."""
    return Problem(503, detail, headers={"Retry-After": str(RETRY_AFTER_S)}, **members)


def fault(where: str, loc: Sequence[str | int], message: str, kind: str) -> dict[str, Any]:
    """Write one entry of a problem's `errors`."""
    place = [part[:LONGEST_PART] if isinstance(part, str) else part for part in loc]
    return {"in": where, "loc": place, "msg": message[:LONGEST_PART], "type": kind}


def faults_of(error: ValidationError, where: str) -> list[dict[str, Any]]:
    """List what pydantic found, without repeating what was sent."""
    found = error.errors(include_url=False, include_context=False, include_input=False)
    return [fault(where, each["loc"], each["msg"], each["type"]) for each in found[:MOST_FAULTS]]


def told(request: web.Request, error: Exception) -> web.StreamResponse:
    """Make a problem of whatever a handler raised; raises again what is an answer and no error."""
    match error:
        case Problem():
            return error.response()
        case web.HTTPException() if error.status >= 400:
            return _of_aiohttp(request, error).response()
        case web.HTTPException():
            raise error
        case BrokerUnavailable():
            return unavailable(
                "The message broker cannot take messages at the moment; try again shortly."
            ).response()
        case Unpublishable():
            return Problem(413, f"The message broker cannot carry this message. {error}").response()
        case RegistryUnavailable():
            return unavailable("The database does not answer at the moment; try again shortly.").response()
    incident = str(uuid4())
    log.error("api.failed", incident=incident, method=request.method, path=request.path, exc_info=error)
    return Problem(
        500,
        f"Something went wrong on our side; it is in the log as {incident}.",
        instance=f"urn:uuid:{incident}",
    ).response()


def rewrite(request: web.Request, error: web.HTTPException) -> None:
    """Make an error that the library answers by itself, as to an `Expect` that it does not know, a problem."""
    body = error.body = _of_aiohttp(request, error).body
    error.headers["Content-Type"] = PROBLEM_JSON
    error.headers["Content-Length"] = str(len(body))


def _of_aiohttp(request: web.Request, error: web.HTTPException) -> Problem:
    headers = {
        name: value for name, value in error.headers.items() if name.lower() in ("allow", "retry-after")
    }
    match error.status:
        case 404:
            detail = "There is nothing at this path; GET /openapi.json lists what there is."
        case 405:
            detail = (
                f"{request.method} is not for this path; it takes {headers.get('Allow', 'other methods')}."
            )
        case 413:
            detail = f"The body is too large; at most {request.client_max_size:,} bytes are taken."
        case 417:
            detail = "This Expect header is not known; 100-continue is."
        case _:
            # The library's own words may repeat what was sent.
            detail = f"The request cannot be answered: {HTTPStatus(error.status).phrase}."
    return Problem(error.status, detail, headers=headers)
