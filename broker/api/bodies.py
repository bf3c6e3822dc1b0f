"""Bodies: JSON read strictly, straight from bytes; bad JSON is told apart from what a model refuses."""

from typing import Any, TypeVar

from aiohttp import web
from aiohttp_pydantic.injectors import BodyGetter
from pydantic import BaseModel, ValidationError
from pydantic_core import from_json

from broker.api.patience import PATIENCE
from broker.api.problems import Problem, faults_of
from broker.models.json_bytes import why_not_json, without_mark

M = TypeVar("M", bound=BaseModel)

#: Larger bodies are answered with 413, in bytes.
LARGEST_BODY = 256 * 1024


class StrictBody(BodyGetter):
    """Injects a request's body: media type, then JSON, then the model."""

    def __init__(self, args_spec: dict[str, type[BaseModel]], default_values: dict[str, Any]) -> None:
        ((self.arg_name, self.model),) = args_spec.items()

    async def inject(self, request: web.Request, args_view: list[Any], kwargs_view: dict[str, Any]) -> None:
        """Read the body into the handler's argument; raises Problem 400, 413, 415 or 422."""
        require_json(request)
        kwargs_view[self.arg_name] = read_json(self.model, await _read_in_its_own_time(request))


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
    """Return where the request says that it sends JSON, or nothing; raises Problem 415 otherwise."""
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
        return await _read(request)
    finally:
        patience.take(left)


async def _read(request: web.Request) -> bytes:
    try:
        return await request.read()
    except (web.RequestPayloadError, ConnectionError):
        # A broken chunk or compression, or a client that hung up half-way. Where it ends is not known, so
        # nothing after it on this connection can be read; the server need not try, and log that it cannot.
        request.content.feed_eof()
        raise Problem(
            400,
            "The body could not be read: it ended early, or its encoding is broken.",
            headers={"Connection": "close"},
        ) from None
