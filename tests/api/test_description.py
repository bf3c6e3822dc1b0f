"""The API's description: valid, complete, and true of what the API takes and answers."""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pytest
from aiohttp import ClientResponse
from openapi_schema_validator import OAS31Validator
from openapi_spec_validator import OpenAPIV31SpecValidator
from referencing import Registry
from referencing.jsonschema import DRAFT202012

from broker.models.builders import buttons, postback, quick_replies, text
from broker.models.outbound import webhook_body
from broker.models.records import BotResponse

USER = {"id": "u1"}


@dataclass
class Described:
    """The description, and what validates against it."""

    spec: Mapping[str, Any]

    @property
    def operations(self) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
        """List method, path and operation."""
        for path, item in self.spec["paths"].items():
            for method, operation in item.items():
                yield method, path, operation

    def faults(self, value: object, *place: str) -> list[str]:
        """Tell what is wrong with a value, by the schema at a place of the description."""
        registry: Registry[Any] = Registry().with_resource("urn:spec", DRAFT202012.create_resource(self.spec))
        pointer = "/".join(part.replace("~", "~0").replace("/", "~1") for part in place)
        validator = OAS31Validator({"$ref": f"urn:spec#/{pointer}"}, registry=registry)
        return [error.message for error in validator.iter_errors(value)]

    def schema_faults(self, name: str, value: object) -> list[str]:
        """Tell what is wrong with a value, by a named schema."""
        return self.faults(value, "components", "schemas", name)

    async def check(self, answer: ClientResponse) -> None:
        """Hold an answer of the API against the description."""
        method, given = answer.method.lower(), answer.url.path
        path = next(
            (
                path
                for here, path, _ in sorted(self.operations, key=lambda one: one[1].count("{"))
                if here == method and re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", path), given)
            ),
            None,
        )
        assert path is not None, f"{method} {given} is not described"
        responses = self.spec["paths"][path][method]["responses"]
        told = f"{answer.status}"
        assert told in responses, f"{method} {path} answered {told}"
        place = ("paths", path, method, "responses", told)
        response = responses[told]
        if "$ref" in response:
            place = tuple(response["$ref"].removeprefix("#/").split("/"))
            response = self.spec["components"]["responses"][place[-1]]
        if not response.get("content"):
            assert await answer.read() == b""
            return
        assert answer.content_type in response["content"], (answer.content_type, method, path, told)
        body = await answer.text()
        value = body if answer.content_type == "text/plain" else json.loads(body)
        assert self.faults(value, *place, "content", answer.content_type, "schema") == []
        for name in response.get("headers", {}):
            if name in ("WWW-Authenticate", "Retry-After", "Location"):
                assert name in answer.headers


@pytest.fixture
async def described(api: Any) -> Described:
    return Described(await (await api.http.get("/openapi.json")).json())


async def test_the_description_is_valid_openapi(described):
    assert [str(error) for error in OpenAPIV31SpecValidator(described.spec).iter_errors()] == []


async def test_every_operation_has_a_name_a_description_and_its_errors(described):
    names = [operation["operationId"] for _, _, operation in described.operations]
    assert len(set(names)) == len(names)
    tags = {tag["name"] for tag in described.spec["tags"]}
    for _, path, operation in described.operations:
        assert re.fullmatch(r"[a-z][A-Za-z]+", operation["operationId"])
        assert operation["description"]
        assert set(operation["tags"]) <= tags
        assert "security" in operation, "also where none is asked for"
        statuses = set(operation["responses"])
        assert {"400", "503", "default"} <= statuses
        assert not operation["security"] or "401" in statuses
        assert "{" not in path or "404" in statuses
        assert "requestBody" not in operation or {"413", "415", "422"} <= statuses
        assert all(
            parameter["in"] != "path" or parameter["required"]
            for parameter in operation.get("parameters", [])
        )
    assert described.spec["servers"]


def examples_in(value: Any, *place: str) -> Iterator[tuple[tuple[str, ...], Any]]:
    if isinstance(value, dict):
        if "schema" in value:
            for example in value.get("examples", {}).values():
                yield (*place, "schema"), example["value"]
        if isinstance(value.get("examples"), list):
            for example in value["examples"]:
                yield place, example
        for name, inner in value.items():
            yield from examples_in(inner, *place, name)
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            yield from examples_in(inner, *place, str(number))


async def test_every_example_is_as_its_schema_has_it(described):
    examples = list(examples_in(described.spec))
    assert len(examples) > 8
    for place, example in examples:
        assert described.faults(example, *place) == [], place


async def test_every_example_of_a_request_is_taken(api, described):
    channel = await api.channel()
    for _, path, operation in described.operations:
        for content in operation.get("requestBody", {}).get("content", {}).values():
            for name, example in content.get("examples", {}).items():
                body = example["value"]
                if operation["operationId"] == "postMessage":
                    answer = await api.post(channel, body)
                else:
                    if "verifyToken" in body:
                        body = {**body, "verifyToken": channel["verifyToken"]}
                    answer = await api.call("POST", path.replace("{channelId}", channel["id"]), body)
                assert answer.status in (200, 201), (path, name, await answer.text())


@pytest.mark.parametrize(
    "message",
    [
        {"message": {"introMessage": {}}, "user": USER},
        {"message": {"introMessage": {}, "textMessage": None}, "user": USER},
        {"message": {"introMessage": {}, "textMessage": {"text": "x"}}, "user": USER},
        {"message": {}, "user": USER},
        {"message": {"textMessage": {"text": 1}}, "user": USER},
        {"message": {"textMessage": {"text": ""}}, "user": {"id": 7}},
        {"message": {"textMessage": {"text": "x"}}, "user": {"id": ""}},
        {"message": {"textMessage": {"text": "x"}}, "user": {"id": "u" * 257}},
        {"message": {"textMessage": {"text": "x"}}, "user": {}},
        {"message": {"textMessage": {"text": "x"}}},
        {"message": {"textMessage": {"text": "x"}}, "conversationId": "c"},
        {"message": {"textMessage": {"text": "x"}}, "user": None, "conversationId": 5},
        {"message": {"locationMessage": {"coordinates": {"lat": 91, "long": 0}}}, "user": USER},
        {"message": {"postbackMessage": {"sessionDataToSet": [{"key": "a"}]}}, "user": USER},
        {"message": {"postbackMessage": {"sessionDataToSet": [{"key": "k" * 257}]}}, "user": USER},
        {"message": {"textMessage": {"text": "x"}}, "user": USER, "sessionData": {"k" * 257: 1}},
    ],
)
async def test_the_description_refuses_the_messages_that_the_api_refuses(api, described, message):
    taken = (await api.post(await api.channel(), message)).status == 200
    assert (described.schema_faults("MessageRequest", message) == []) == taken


@pytest.mark.parametrize(
    "changes",
    [
        {"url": "ftp://example.com"},
        {"url": "https://example.com/#part"},
        {"url": "https://example.com/" + "x" * 2048},
        {"events": []},
        {"events": ["a b"]},
        {"events": ["response.*", "#"]},
        {"headers": {"a b": "x"}},
        {"headers": {f"x-{number}": "y" for number in range(21)}},
        {"headers": {"x-key": "y" * 1025}},
        {"verifyToken": "a\nb"},
        {"timeoutSeconds": 61},
        {"retrySchedule": [0.01]},
        {"rateLimit": 0},
        {"enabled": None},
        {"unknown": 1},
        {},
    ],
)
async def test_the_description_refuses_the_webhooks_that_the_api_refuses(api, described, changes):
    channel = await api.channel()
    body = {"url": "https://example.com/hook", **changes}
    answer = await api.call("POST", f"/v1/channels/{channel['id']}/webhooks", body)
    assert (described.schema_faults("WebhookCreation", body) == []) == (answer.status == 201)
    webhook = await api.webhook(channel["id"])
    answer = await api.call("PATCH", f"/v1/webhooks/{webhook['id']}", changes)
    assert (described.schema_faults("WebhookPatch", changes) == []) == (answer.status == 200)


async def test_the_description_names_the_bots_that_there_are(api, described):
    assert described.schema_faults("ChannelCreation", {"name": "a", "bot": {"type": "echo"}}) == []
    assert described.schema_faults("ChannelCreation", {"name": "a", "bot": {"type": "nobody"}})
    answer = await api.call("POST", "/v1/channels", {"name": "a", "bot": {"type": "nobody"}})
    assert answer.status == 422


async def test_what_the_api_answers_is_as_the_description_has_it(api, described):
    channel = await api.channel()
    webhook = await api.webhook(channel["id"])
    here, hook = f"/v1/channels/{channel['id']}", f"/v1/webhooks/{webhook['id']}"
    doors = f"/v1/channels/webhook/{channel['id']}/messages"
    legacy = {"text": "x", "sender": {"id": "u"}, "verifyToken": channel["verifyToken"]}
    nothing = "00000000-0000-0000-0000-000000000000"
    calls: list[tuple[str, str, Any]] = [
        ("POST", "/v1/channels", {"name": "Other", "bot": {"type": "echo"}}),
        ("POST", "/v1/channels", {"name": ""}),
        ("GET", "/v1/channels?limit=1", None),
        ("GET", "/v1/channels?limit=0", None),
        ("GET", here, None),
        ("GET", "/v1/channels/nothing", None),
        ("PATCH", here, {"name": "New"}),
        ("PATCH", here, {"name": None}),
        ("GET", f"{here}/webhooks", None),
        ("POST", f"{here}/webhooks", {"url": "https://example.com/b", "rateLimit": 5}),
        ("GET", hook, None),
        ("PATCH", hook, {"enabled": False}),
        ("POST", f"{hook}/test", None),
        ("POST", f"{hook}/rotate-secret", None),
        ("POST", f"{hook}/redrive", {}),
        ("GET", f"{here}/deliveries", None),
        ("GET", f"/v1/deliveries/{nothing}", None),
        ("POST", f"/v1/deliveries/{nothing}/redrive", None),
        ("GET", "/v1/dead-letters", None),
        ("GET", f"/v1/dead-letters/{nothing}", None),
        ("POST", f"/v1/dead-letters/{nothing}/redrive", None),
        ("GET", f"{here}/conversations/u/turns", None),
        ("GET", f"{here}/conversations/u/responses", None),
        ("GET", "/healthz", None),
        ("GET", "/readyz", None),
        ("POST", f"/api/webhookMessage/{channel['id']}", legacy),
        ("POST", f"/api/webhookMessage/{channel['id']}", {**legacy, "verifyToken": "no"}),
        ("POST", doors, {"message": {"introMessage": {}}, "user": USER}),
        ("DELETE", hook, None),
        ("DELETE", here, None),
    ]
    for method, path, body in calls:
        await described.check(await api.call(method, path, body))
        if not path.startswith(("/api", "/healthz", "/readyz")):
            await described.check(await api.call(method, path, body, headers={}))
    again = await api.channel()
    await described.check(await api.post(again, {"message": {"introMessage": {}}, "user": USER}))
    await described.check(await api.post(again, {"message": {}, "user": USER}))
    await described.check(await api.post(again, {"message": "x" * 300_000}))


async def test_what_webhooks_receive_is_as_the_description_has_it(described):
    said = [
        text("hello"),
        quick_replies("choose", [("yes", "y"), ("no", "n")]),
        buttons("choose", [postback("Yes", "y")]),
        {"type": "event", "name": "typing"},
        {"anything": ["else"]},
    ]
    for counter, message in enumerate(said, start=1):
        response = BotResponse(
            id="r",
            channel_id="ch",
            user_id="u",
            in_reply_to="m",
            index=1,
            count=1,
            message_counter=counter,
            kind="other",
            message=message,
        )
        body = json.loads(webhook_body(response, "token"))
        assert described.schema_faults("WebhookBody", body) == []
    assert described.schema_faults("WebhookBody", {**body, "messageCounter": 0})
    received = described.spec["webhooks"]["botMessage"]["post"]
    assert {p["name"] for p in received["parameters"]} >= {"webhook-id", "webhook-signature", "postbote-turn"}
