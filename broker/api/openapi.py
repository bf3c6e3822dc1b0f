"""The API's own description: OpenAPI 3.1, made from the views. Imported when it is asked for."""

from typing import Any, get_args, get_origin

from aiohttp import web
from aiohttp_pydantic.oas.pydantic_schema_to_oas import add_or_replace_translater
from aiohttp_pydantic.oas.typing import r200, r201, r204
from aiohttp_pydantic.oas.view import generate_oas
from aiohttp_pydantic.view import is_pydantic_view
from pydantic.alias_generators import to_camel

from broker import __version__
from broker.api.answers import Created, NoContent, Ok, OkText

# Pydantic writes JSON Schema 2020-12, which OpenAPI 3.1 takes as it is; the library would bend it to 3.0.
add_or_replace_translater("3.0.0", lambda schema: None)

#: Our words for what a handler answers, and the library's.
ANSWERS = {Ok: r200, OkText: r200, Created: r201, NoContent: r204}

SECURITY = {
    "admin": {"type": "http", "scheme": "bearer", "description": "The admin token."},
    "channel": {"type": "http", "scheme": "bearer", "description": "The access token of the channel."},
}

PROBLEM = {
    "title": "Problem",
    "description": "What went wrong (RFC 9457).",
    "type": "object",
    "required": ["type", "title", "status", "detail"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {
                    "in": {"type": "string"},
                    "loc": {"type": "array", "items": {"type": ["string", "integer"]}},
                    "msg": {"type": "string"},
                    "type": {"type": "string"},
                },
            },
        },
    },
}


def describe(app: web.Application) -> dict[str, Any]:
    """Describe an application's endpoints; call it when all routes are there."""
    for route in app.router.routes():
        if is_pydantic_view(route.handler):
            _translate_answers(route.handler)
    spec: dict[str, Any] = generate_oas([app], __version__, "Postbote", SECURITY)
    spec["openapi"] = "3.1.0"
    spec["components"].setdefault("schemas", {})["Problem"] = PROBLEM
    spec["paths"] = {_wire_path(path, item): item for path, item in spec["paths"].items()}
    for item in spec["paths"].values():
        for operation in item.values():
            _complete(operation)
    return spec


def _translate_answers(view: Any) -> None:
    for method in view.allowed_methods:
        handler = getattr(view, method.lower())
        told = handler.__annotations__["return"]
        if (kind := ANSWERS.get(get_origin(told) or told)) is not None:
            models = get_args(told)
            handler.__annotations__["return"] = kind[models[0]] if models else kind


def _wire_path(path: str, item: dict[str, Any]) -> str:
    for name in {p["name"] for o in item.values() for p in o.get("parameters", []) if p["in"] == "path"}:
        path = path.replace(f"{{{name}}}", f"{{{to_camel(name)}}}")
    return path


def _complete(operation: dict[str, Any]) -> None:
    """Write what the library does not know: names as on the wire, alternatives of tokens, problems."""
    summary, _, description = operation.pop("description", "").partition("\n\n")
    operation["summary"] = summary.removesuffix(".")
    if description:
        operation["description"] = description
    for parameter in operation.get("parameters", []):
        name = parameter["name"]
        parameter["name"] = name.replace("_", "-") if parameter["in"] == "header" else to_camel(name)
        parameter["schema"] = _given(parameter["schema"])
    if "security" in operation:
        operation["security"] = [{name: []} for each in operation["security"] for name in each]
    if "requestBody" in operation:
        operation["requestBody"]["required"] = True
    for status, response in operation["responses"].items():
        response["description"] = response.get("description") or "Done."
        if status == "200" and not response["content"]:
            response["content"] = {"text/plain": {"schema": {"type": "string"}}}
    operation["responses"]["default"] = {
        "description": "A problem; `detail` says what happened and what to do.",
        "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}},
    }


def _given(schema: dict[str, Any]) -> dict[str, Any]:
    """Describe a parameter as it is when it is given: absent is not null, on the wire."""
    ways = [way for way in schema.pop("anyOf", []) if way.get("type") != "null"]
    schema.pop("title", None)
    return {**schema, **ways[0]} if len(ways) == 1 else {**schema, **({"anyOf": ways} if ways else {})}
