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
from broker.api.examples import DELIVERED, REQUESTS
from broker.api.operations import (
    HEADERS,
    OPERATION_IDS,
    RATE_HEADERS,
    TAGS,
    problem_responses,
    problems_of,
)
from broker.api.outgoing import webhook_schemas, webhooks
from broker.api.parts import PARTS
from broker.api.receipt import EVENT_RECEIVED

# Pydantic writes JSON Schema 2020-12, which OpenAPI 3.1 takes as it is; the library would bend it to 3.0.
add_or_replace_translater("3.0.0", lambda schema: None)

#: Our words for what a handler answers, and the library's.
ANSWERS = {Ok: r200, OkText: r200, Created: r201, NoContent: r204}

SECURITY = {
    "admin": {"type": "http", "scheme": "bearer", "description": "The admin token."},
    "channel": {"type": "http", "scheme": "bearer", "description": "The access token of the channel."},
}

INFO = {
    "contact": {"name": "The administrator of this Postbote"},
    "description": "An open webhook channel for chatbots. A user's message is posted here; what the bot says is "
    "posted to every webhook registered for its channel, at least once and in the order in which it was said.",
}

#: Names a user; a whole number is taken too, since clients send them.
IDENTIFIER = {"type": ["string", "integer"], "minLength": 1, "maxLength": 256}
IDENTIFIER_OR_NULL = {**IDENTIFIER, "type": ["string", "integer", "null"]}

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
    spec["info"] |= INFO
    # Relative to where the description was read.
    spec["servers"] = [{"url": "/", "description": "This Postbote."}]
    spec["tags"] = TAGS
    components = spec["components"]
    schemas = components.setdefault("schemas", {})
    schemas |= {**webhook_schemas(), "Problem": PROBLEM}
    components["responses"] = problem_responses()
    components["headers"] = HEADERS
    _enforced(schemas, sorted(app[PARTS].bot_types) if PARTS in app else [])
    spec["paths"] = {_wire_path(path, item): item for path, item in spec["paths"].items()}
    for path, item in spec["paths"].items():
        for method, operation in item.items():
            _complete(OPERATION_IDS[method, path], operation)
    spec["webhooks"] = webhooks(DELIVERED)
    return spec


def _enforced(schemas: dict[str, Any], bot_types: list[str]) -> None:
    """Write what the models refuse in Python, and their schemas do not say."""
    message = schemas["InboundMessage"]
    kinds = message.pop("properties")
    del message["type"], message["additionalProperties"]
    message["oneOf"] = [
        {
            "title": name[0].upper() + name[1:],
            "type": "object",
            "required": [name],
            "properties": {name: kind["anyOf"][0]},
        }
        for name, kind in kinds.items()
    ]
    schemas["MessageRequest"]["anyOf"] = [
        {
            "required": ["user"],
            "properties": {"user": {"type": "object", "required": ["id"], "properties": {"id": IDENTIFIER}}},
        },
        {"required": ["conversationId"], "properties": {"conversationId": IDENTIFIER}},
    ]
    for name, field in (("Profile", "id"), ("MessageRequest", "conversationId"), ("LegacySender", "id")):
        schemas[name]["properties"][field] = IDENTIFIER if name == "LegacySender" else IDENTIFIER_OR_NULL
    for schema in schemas.values():
        # What may be left out, a client made from this would have to give.
        for value in schema.get("properties", {}).values():
            value.pop("default", None)
    if bot_types:
        schemas["Bot"]["properties"]["type"]["enum"] = bot_types


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


def _complete(operation_id: str, operation: dict[str, Any]) -> None:
    """Write what the library does not know: names as on the wire, alternatives of tokens, problems, examples."""
    summary, _, description = operation.pop("description", "").partition("\n\n")
    operation["operationId"] = operation_id
    operation["summary"] = summary.removesuffix(".")
    operation["description"] = description or summary
    for parameter in operation.get("parameters", []):
        name = parameter["name"]
        parameter["name"] = name.replace("_", "-") if parameter["in"] == "header" else to_camel(name)
        parameter["schema"] = schema = _given(parameter["schema"])
        if "description" in schema:
            parameter["description"] = schema.pop("description")
    operation["security"] = [{name: []} for each in operation.get("security", ()) for name in each]
    if "requestBody" in operation:
        operation["requestBody"]["required"] = True
        if examples := REQUESTS.get(operation_id):
            (content,) = operation["requestBody"]["content"].values()
            content["examples"] = {name: {"value": value} for name, value in examples.items()}
    for status, response in operation["responses"].items():
        response["description"] = response.get("description") or "Done."
        if status == "200" and not response["content"]:
            response["content"] = {"text/plain": {"schema": {"type": "string", "const": EVENT_RECEIVED}}}
        if "messages" in operation["tags"]:
            response["headers"] = RATE_HEADERS
        elif status == "201":
            response["headers"] = {"Location": {"$ref": "#/components/headers/Location"}}
    operation["responses"] |= problems_of(operation_id, operation)


def _given(schema: dict[str, Any]) -> dict[str, Any]:
    """Describe a parameter as it is when it is given: absent is not null, on the wire."""
    ways = [way for way in schema.pop("anyOf", []) if way.get("type") != "null"]
    schema.pop("title", None)
    return {**schema, **ways[0]} if len(ways) == 1 else {**schema, **({"anyOf": ways} if ways else {})}
