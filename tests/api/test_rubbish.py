"""Whatever is sent, the answer is a clear one: never a 500, and every error a problem."""

import asyncio
import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from yarl import URL

from broker.registry.records import Attempt

LONG = "x" * 3000
DEEP = "[" * 150 + "]" * 150
BODIES = [
    b"",
    b"null",
    b"true",
    b"0",
    b'"text"',
    b"[]",
    b"{}",
    b"{",
    b"\x00",
    b"\xff\xfe{}",
    b"NaN",
    b"-Infinity",
    b"1e999",
    b"9" * 4000,
    b"9" * 6000,
    b'"\\ud800"',
    b'"\\u0000"',
    DEEP.encode(),
    b"[" * 100_000,
    b'{"a":' * 100_000,
    b'{"": {"": ""}}',
    b"x" * 300_000,
    b"[" + b"0," * 100_000 + b"0]",
]
VALUES: list[Any] = [
    None,
    True,
    0,
    -1,
    2**63,
    10**400,
    1e300,
    "",
    "\x00",
    "\U0010ffff",
    "\r\nX: y",
    LONG,
    [],
    [None],
    {},
    {"": None},
    {"\x00": "\x00"},
    {LONG: LONG},
    {"id": {}},
    {"type": []},
    {"type": "echo", "\x00": 10**400},
    json.loads(DEEP),
]
WORDS = [
    "message",
    "user",
    "id",
    "sessionData",
    "conversationId",
    "textMessage",
    "postbackMessage",
    "locationMessage",
    "introMessage",
    "text",
    "sender",
    "verifyToken",
    "locale",
    "name",
    "bot",
    "type",
    "url",
    "events",
    "headers",
    "timeoutSeconds",
    "enabled",
]
SEGMENTS = [
    "%00",
    "%FF",
    "%ED%A0%80",
    "%2F",
    "%2E%2E",
    "%",
    "%zz",
    "%25%30%30",
    "a%0Ab",
    "%C3%A9",
    LONG,
    "{x}",
    "'--",
    "*",
]
QUERIES = [
    "limit=%00",
    "limit=1e3",
    "limit=99999999999999999999999999",
    "limit[]=1",
    "cursor=%ED%A0%80",
    "cursor=eyJ9",
    "cursor=WzEsMl0",
    "cursor=WzExNTI5MjE1MDQ2MDY4NDY5NzUsImEiXQ",
    "cursor=WzAsIlx1MDAwMCJd",
    "cursor=" + LONG,
    "after=0x1",
    "after=9223372036854775807",
    "after=9223372036854775808",
    "status=%FF",
    "webhookId=%00",
    "&&&=&=",
    "%",
]
HEADERS = [
    {"Idempotency-Key": "ключ"},
    {"Idempotency-Key": "\udcff"},
    {"traceparent": "\udcff" * 55},
    {"traceparent": LONG},
    {"Content-Type": "\udcff"},
    {"Content-Type": "application/json; charset=nonsense"},
    {"Content-Type": "multipart/form-data"},
    # The server may close such a connection after its answer, so it is not used again.
    {"Content-Encoding": "gzip", "Connection": "close"},
    {"Content-Encoding": "deflate", "Connection": "close"},
    {"Accept": "\udcff"},
    {"Cookie": "\udcff=\udcff"},
    {"If-Modified-Since": "yesterday"},
    {"Range": "bytes=9-1"},
]


class Target:
    """A served API with a channel and a webhook, and all that its own description says can be called."""

    def __init__(
        self, api: Any, channel: dict[str, Any], webhook: dict[str, Any], spec: dict[str, Any]
    ) -> None:
        self.api = api
        self.operations = [
            (method.upper(), path)
            for path, item in spec["paths"].items()
            for method in item
            if method != "delete"
        ]
        self.deletions = [path for path, item in spec["paths"].items() if "delete" in item]
        self.names = {
            "channelId": channel["id"],
            "webhookId": webhook["id"],
            "userId": "u",
            "deliveryId": "00000000-0000-0000-0000-000000000000",
        }
        self.tokens = {"channel": channel["accessToken"], "admin": "admin-secret"}

    def path(self, path: str, segment: str | None = None) -> str:
        """Fill in a path's names: with things that are there, or all with one segment."""
        for name, value in self.names.items():
            path = path.replace(f"{{{name}}}", value if segment is None else segment)
        return path

    async def send(self, method: str, path: str, body: bytes | None = None, **headers: str) -> None:
        """Send a request, exactly as written, with a token that opens the path."""
        token = self.tokens["channel" if path.endswith("/messages") else "admin"]
        url = URL(str(self.api.http.make_url("/")).rstrip("/") + path, encoded=True)
        merged = {"Authorization": f"Bearer {token}", "Content-Type": "application/json", **headers}
        async with self.api.http.session.request(method, url, data=body, headers=merged) as answer:
            text = await answer.read()
            assert answer.status < 500, (method, path, body, text)
            # What the HTTP parser itself refuses, such as broken compression, never reaches the API.
            if answer.status >= 400 and method != "HEAD" and "Content-Encoding" not in headers:
                assert answer.content_type == "application/problem+json", (method, path, body, text)
                assert json.loads(text)["status"] == answer.status


@pytest.fixture
def registry_url(database_url: str) -> str:
    """Each database in turn: what the one takes, the other may refuse."""
    return database_url


@pytest.fixture
async def target(serve: Any) -> Target:
    """Something to throw rubbish at."""

    async def ping(channel: object, webhook: object) -> Attempt:
        return Attempt(1, datetime.now(UTC), 1, None, "dns", "no such host", "")

    api = await serve(ping=ping)
    channel = await api.channel()
    webhook = await api.webhook(channel["id"])
    return Target(api, channel, webhook, await (await api.http.get("/openapi.json")).json())


async def test_every_body(target):
    for method, path in target.operations:
        for body in BODIES:
            await target.send(method, target.path(path), body)


async def test_every_value_in_every_place_of_a_body(target):
    writing = [(m, p) for m, p in target.operations if m in ("POST", "PATCH")]
    for method, path in writing:
        for value in VALUES:
            everywhere = dict.fromkeys(WORDS, value)
            for body in (
                everywhere,
                {"message": everywhere, "user": {"id": "u"}},
                {"message": {"textMessage": value}, "user": value},
            ):
                await target.send(method, target.path(path), json.dumps(body).encode())


async def test_every_segment_in_every_path(target):
    for method, path in [*target.operations, *(("DELETE", path) for path in target.deletions)]:
        for segment in SEGMENTS:
            if "{" in path:
                await target.send(method, target.path(path, segment), b"{}")


async def test_every_query_and_header(target):
    for method, path in target.operations:
        for query in QUERIES:
            await target.send(method, f"{target.path(path)}?{query}", b"{}")
        for headers in HEADERS:
            await target.send(method, target.path(path), b"{}", **headers)


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(WORDS) | st.text(), inner, max_size=6)
    ),
    max_leaves=20,
)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), body=st.binary(max_size=64) | _json.map(lambda value: json.dumps(value).encode()))
async def test_anything_at_all(target, data, body):
    method, path = data.draw(st.sampled_from(target.operations))
    segment = data.draw(
        st.none() | st.text(st.characters(codec="utf-8", exclude_characters="/?#"), min_size=1)
    )
    where = target.path(path, None if segment is None else URL.build(path="/" + segment).raw_path[1:])
    await target.send(method, where, body)


@pytest.mark.parametrize(
    "request_text",
    [
        b"POST /v1/channels HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer admin-secret\r\n"
        b"Content-Length: 5\r\n\r\n{}",
        b"POST /v1/channels HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer admin-secret\r\n"
        b"Transfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n",
        b"GET /v1/\xff\xfe HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /v1/channels?cursor=\xff HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer admin-secret\r\n\r\n",
        b"GET /v1/channels/\xff HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer admin-secret\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: x\r\nExpect: a miracle\r\n\r\n",
        b"rubbish\r\n\r\n",
        b"GET /healthz HTTP/9.9\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01",
        b"GET /" + b"a" * 10_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
    ],
)
async def test_what_is_hardly_http_leaves_the_api_standing(target, request_text):
    server = target.api.http.server
    reader, writer = await asyncio.open_connection(server.host, server.port)
    writer.write(request_text)
    writer.write_eof()
    answer = await asyncio.wait_for(reader.read(), 10)
    writer.close()
    await writer.wait_closed()
    assert not answer.startswith(b"HTTP/1.1 5"), answer
    assert (await target.api.http.get("/healthz")).status == 200
