"""Bodies: JSON read strictly, straight from bytes; bad JSON is told apart from what a model refuses."""

import asyncio
from typing import Any, TypeVar

from aiohttp import web
from aiohttp_pydantic.injectors import BodyGetter
from pydantic import BaseModel, ValidationError
from pydantic_core import from_json

from broker.api.headers import only
from broker.api.patience import PATIENCE
from broker.api.problems import Problem, faults_of
from broker.models.json_bytes import why_not_json, without_mark

M = TypeVar("M", bound=BaseModel)

#: Larger bodies are answered with 413, in bytes.
LARGEST_BODY = 256 * 1024
#: How long a body may take to come in, in seconds: the largest at 70 kbit/s.
BODY_S = 30.0


class StrictBody(BodyGetter):
    """Injects a request's body: media type, then JSON, then the model."""

    def __init__(self, args_spec: dict[str, type[BaseModel]], default_values: dict[str, Any]) -> None:
        ((self.arg_name, self.model),) = args_spec.items()

    async def inject(self, request: web.Request, args_view: list[Any], kwargs_view: dict[str, Any]) -> None:
        """Read the body into the handler's argument; raises Problem 400, 408, 413, 415 or 422."""
        kwargs_view[self.arg_name] = read_json(self.model, await read_body(request))


async def read_body(request: web.Request, largest: int = LARGEST_BODY) -> bytes:
    """Read a request's body of JSON; raises Problem 400, 408, 413 or 415."""
    require_json(request)
    if (request.content_length or 0) > largest:
        raise too_large(largest)
    body = await _read_in_its_own_time(request)
    if len(body) > largest:
        raise too_large(largest)
    return body


def too_large(largest: int) -> Problem:
    """Say that a body has more than so many bytes."""
    return Problem(413, f"The body is too large; at most {largest:,} bytes are taken.")


def read_json(model: type[M], body: bytes) -> M:
    """Read a body into a model; raises Problem: 400 where it is no JSON, 422 where the model refuses it."""
    body = without_mark(body)
    # The parser takes NaN and Infinity, which JSON has not (RFC 8259, section 6). They are rare enough that
    # only a body with such a word in it is read twice.
    if b"NaN" in body or b"Infinity" in body:
        try:
            from_json(body, allow_inf_nan=False)
        except ValueError as error:
            raise Problem(400, f"The body is not JSON: {error}.") from None
    return read_part(model, body)


def read_part(model: type[M], body: bytes) -> M:
    """Read what a model names of a body, and leave the rest unchecked; raises Problem 400 or 422."""
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        faults = faults_of(error, "body")
        if faults[0]["type"] == "json_invalid" and not faults[0]["loc"]:
            why = why_not_json(body) or faults[0]["msg"].removeprefix("Invalid JSON: ")
            raise Problem(400, f"The body is not JSON: {why}.") from None
        raise Problem(422, "The body is not as it has to be; `errors` says where.", errors=faults) from None


def has_come(request: web.BaseRequest) -> bool:
    """Tell whether the whole body is here and nothing is wrong with it; it may be read without waiting then."""
    content = request.content
    return content.is_eof() and content.exception() is None and content.total_bytes <= LARGEST_BODY


def require_json(request: web.BaseRequest) -> None:
    """Return where the request says that it sends plain JSON, or nothing; raises Problem 400 or 415 otherwise."""
    encoding = only(request, "Content-Encoding")
    if encoding is not None and encoding.strip().lower() != "identity":
        # A megabyte can unpack to a gigabyte.
        raise Problem(
            415,
            "Send the body as it is, without a Content-Encoding: it is not unpacked here.",
            headers={"Accept-Encoding": "identity"},
        )
    given = request.headers.get("Content-Type")
    if given is None:
        return
    kind = given.partition(";")[0].strip().lower()
    if kind != "application/json" and not kind.endswith("+json"):
        raise Problem(
            415, "Send JSON, with `Content-Type: application/json`.", headers={"Accept": "application/json"}
        )


async def _read_in_its_own_time(request: web.Request) -> bytes:
    # A sender on a slow line is no reason to say that we are out of order.
    patience = request.get(PATIENCE)
    if patience is None or request.content.is_eof():
        return await _read(request)
    left = patience.pause()
    try:
        async with asyncio.timeout(BODY_S):
            return await _read(request)
    except TimeoutError:
        request.content.feed_eof()
        raise Problem(
            408, f"The body did not come within {BODY_S:g} seconds.", headers={"Connection": "close"}
        ) from None
    finally:
        patience.take(left)


async def _read(request: web.Request) -> bytes:
    try:
        return await request.read()
    except (web.RequestPayloadError, ConnectionError):
        # A broken chunk, or a client that hung up half-way. Where it ends is not known, so
        # nothing after it on this connection can be read; the server need not try, and log that it cannot.
        request.content.feed_eof()
        raise Problem(
            400,
            "The body could not be read: it ended early, or its chunks are broken.",
            headers={"Connection": "close"},
        ) from None
