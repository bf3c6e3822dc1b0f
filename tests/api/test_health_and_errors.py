"""Health, the API's own description, and the answers to what is not there."""

import asyncio
import json
import re
from collections.abc import Iterable
from typing import Any

import pytest

from broker import __version__
from broker.errors import BrokerUnavailable, RegistryUnavailable


async def test_a_process_that_lives_says_so(api):
    answer = await api.http.get("/healthz")
    assert answer.status == 200
    assert await answer.json() == {"status": "ok", "version": __version__}
    assert answer.headers["Server"] == f"Postbote/{__version__}"


async def test_a_process_that_can_work_is_ready(api):
    answer = await api.http.get("/readyz")
    assert answer.status == 200
    assert await answer.json() == {"status": "ready", "checks": {"broker": "ok", "database": "ok"}}


class Away:
    """A part that does not answer, or not in time."""

    def __init__(self, error: Exception | None) -> None:
        self._error = error

    async def check(self) -> None:
        if self._error is None:
            await asyncio.Event().wait()
        else:
            raise self._error

    check_ready = check


@pytest.mark.parametrize(
    ("part", "error"),
    [
        ("broker", BrokerUnavailable("amqp://u:secret@h")),
        ("database", RegistryUnavailable("secret")),
        ("broker", None),
        ("database", OSError("secret")),
    ],
)
async def test_a_process_that_cannot_work_says_which_part(serve, part, error):
    api = await serve(**{part: Away(error)})
    answer = await api.http.get("/readyz")
    assert answer.status == 503
    assert answer.headers["Retry-After"] == "1"
    problem = await answer.json()
    assert part in problem["detail"]
    assert [name for name, outcome in problem["checks"].items() if outcome != "ok"] == [part]
    assert "secret" not in json.dumps(problem)
    assert (await api.http.get("/healthz")).status == 200


class FailingChannels:
    """A registry that fails in one way or another."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    async def page(self, cursor: str | None, limit: int) -> Any:
        raise self._error

    async def doors(self, channel_ids: Iterable[str]) -> Any:
        raise self._error


async def test_with_the_database_away_the_client_is_asked_to_come_again(serve):
    api = await serve(channels=FailingChannels(RegistryUnavailable("postgresql://u:secret@h")))
    for method, path in (("GET", "/v1/channels"), ("POST", "/v1/channels/webhook/x/messages")):
        answer = await api.call(method, path, {})
        assert answer.status == 503
        assert answer.headers["Retry-After"] == "1"
        assert "secret" not in await answer.text()


async def test_what_nobody_expected_is_logged_with_an_id_and_shows_nothing(serve, capsys):
    api = await serve(channels=FailingChannels(RuntimeError("the secret inside")))
    answer = await api.call("GET", "/v1/channels")
    assert answer.status == 500
    problem = await answer.json()
    assert "secret" not in json.dumps(problem)
    incident = problem["instance"].removeprefix("urn:uuid:")
    written = capsys.readouterr()
    assert incident in written.out + written.err
    assert "the secret inside" in written.out + written.err


@pytest.mark.parametrize(
    "path", ["/", "/v1", "/v1/channels/", "/v1/channels/a/b", "/%00", "/..%2f", "/v2/x", "/%FF"]
)
async def test_an_unknown_path_is_a_problem(api, path):
    answer = await api.call("GET", path)
    assert answer.status == 404
    assert answer.content_type == "application/problem+json"
    assert (await answer.json())["status"] == 404


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("PUT", "/v1/channels", {"GET", "HEAD", "POST", "OPTIONS"}),
        ("GET", "/v1/channels/webhook/x/messages", {"POST", "OPTIONS"}),
        ("HEAD", "/v1/channels/webhook/x/messages", {"POST", "OPTIONS"}),
        ("TRACE", "/v1/channels/x", {"GET", "HEAD", "PATCH", "DELETE", "OPTIONS"}),
        ("PROPFIND", "/healthz", {"GET", "HEAD", "OPTIONS"}),
        ("POST", "/openapi.json", {"GET", "HEAD"}),
    ],
)
async def test_another_method_is_405_and_told_which_there_are(api, method, path, allow):
    answer = await api.call(method, path)
    assert answer.status == 405
    assert set(re.split(r",\s*", answer.headers["Allow"])) == allow


async def test_options_tell_the_methods_without_a_token(api):
    answer = await api.http.options("/v1/channels")
    assert answer.status == 204
    assert answer.headers["Allow"] == "GET, HEAD, OPTIONS, POST"


async def test_head_is_get_without_the_body(api):
    for path in ("/v1/channels", "/healthz", "/openapi.json"):
        whole = await api.call("GET", path)
        head = await api.call("HEAD", path)
        assert head.status == 200
        assert head.headers["Content-Length"] == str(len(await whole.read()))
        assert await head.read() == b""
    assert (await api.http.head("/v1/channels")).status == 401


async def test_the_api_describes_itself(api):
    answer = await api.http.get("/openapi.json")
    assert answer.status == 200
    text = await answer.text()
    spec = json.loads(text)
    assert spec["openapi"] == "3.1.0"
    assert {"title": "Postbote", "version": __version__}.items() <= spec["info"].items()
    schemas = spec["components"]["schemas"]
    references = set(re.findall(r'"#/components/schemas/([^"]+)"', text))
    assert references <= set(schemas)
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+", name) for name in schemas)
    message = spec["paths"]["/v1/channels/webhook/{channelId}/messages"]["post"]
    assert message["security"] == [{"channel": []}]
    assert {(p["in"], p["name"]) for p in message["parameters"]} == {
        ("path", "channelId"),
        ("header", "idempotency-key"),
    }
    pull = spec["paths"]["/v1/channels/{channelId}/conversations/{userId}/responses"]["get"]
    assert pull["security"] == [{"channel": []}, {"admin": []}]
    deliveries = spec["paths"]["/v1/channels/{channelId}/deliveries"]["get"]
    assert {p["name"] for p in deliveries["parameters"]} == {
        "channelId",
        "status",
        "webhookId",
        "limit",
        "cursor",
    }
    assert set(schemas["CreatedChannel"]["properties"]) >= {"accessToken", "verifyToken"}
    for path, item in spec["paths"].items():
        for operation in item.values():
            assert set(re.findall(r"\{(\w+)\}", path)) == {
                p["name"] for p in operation.get("parameters", []) if p["in"] == "path"
            }
            assert operation["summary"]
            assert operation["tags"]
