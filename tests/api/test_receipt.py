"""The receipt that most messages get says what the ordinary answer says, and is given only where it may be."""

import asyncio
import json
from typing import Any

import pytest

from broker.settings import Settings

HELLO: dict[str, Any] = {"message": {"textMessage": {"text": "hello"}}, "user": {"id": "u1"}}


async def raw(
    api: Any, channel: dict[str, Any], version: str, *headers: str, pause: float = 0
) -> tuple[bytes, bool]:
    """Post over a socket; returns all that is answered within a moment, and whether the connection was closed."""
    body = json.dumps(HELLO).encode()
    lines = (
        f"POST /v1/channels/webhook/{channel['id']}/messages HTTP/{version}",
        "Host: api",
        f"Authorization: Bearer {channel['accessToken']}",
        f"Content-Length: {len(body)}",
        *headers,
    )
    reader, writer = await asyncio.open_connection(api.http.host, api.http.port)
    try:
        writer.write("\r\n".join((*lines, "\r\n")).encode())
        if pause:
            await asyncio.sleep(pause)
        writer.write(body)
        answer = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
        answer += await reader.readexactly(int(answer.lower().partition(b"content-length:")[2].split()[0]))
        try:
            closed = await asyncio.wait_for(reader.read(1), 0.2) == b""
        except TimeoutError:
            closed = False
        return answer, closed
    finally:
        writer.close()


def told(answer: bytes) -> tuple[str, dict[str, str], dict[str, Any]]:
    """Split an answer into its first line, its headers and its body, without what differs each time."""
    head, _, body = answer.decode().partition("\r\n\r\n")
    first, *lines = head.split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    assert len(headers) == len(lines)
    assert headers.pop("date").endswith(" GMT")
    headers.pop("x-ratelimit-reset", None)
    content = json.loads(body)
    assert len(content.pop("id")) == 36
    return first, headers, content


@pytest.mark.parametrize("limit", [0, 1000])
async def test_it_is_the_ordinary_answer(serve: Any, limit: int) -> None:
    api = await serve(settings=Settings(rate_limit=limit))
    channel = await api.channel()
    # The first message of a second waits for the channel to be looked up, one with a key for its key.
    ordinary, _ = await raw(api, channel, "1.1", "Idempotency-Key: one")
    quick, closed = await raw(api, channel, "1.1")
    in_pieces, _ = await raw(api, channel, "1.1", pause=0.05)
    counted = [told(each)[1].pop("x-ratelimit-remaining", None) for each in (ordinary, quick, in_pieces)]
    assert (counted[0] is not None) == bool(limit)
    found = [told(each) for each in (ordinary, quick, in_pieces)]
    for _, headers, _ in found:
        headers.pop("x-ratelimit-remaining", None)
    assert found[0] == found[1] == found[2]
    assert not closed


@pytest.mark.parametrize(("version", "headers", "closes"), [
    ("1.0", (), True),
    ("1.0", ("Connection: keep-alive",), False),
    ("1.1", ("Connection: close",), True),
])  # fmt: skip
async def test_a_connection_ends_where_its_client_wants_it_to(
    api: Any, version: str, headers: tuple[str, ...], closes: bool
) -> None:
    channel = await api.channel()
    await raw(api, channel, "1.1")
    answer, closed = await raw(api, channel, version, *headers)
    first, _, content = told(answer)
    assert (first, content) == (f"HTTP/{version} 200 OK", {"message": "EVENT_RECEIVED"})
    assert closed is closes


async def test_messages_that_follow_each_other_on_one_connection_are_answered_in_order(api: Any) -> None:
    channel = await api.channel()
    await raw(api, channel, "1.1")
    body = json.dumps(HELLO).encode()
    head = (
        f"POST /v1/channels/webhook/{channel['id']}/messages HTTP/1.1\r\nHost: api\r\n"
        f"Authorization: Bearer {channel['accessToken']}\r\nContent-Length: {len(body)}\r\n\r\n"
    ).encode()
    reader, writer = await asyncio.open_connection(api.http.host, api.http.port)
    writer.write((head + body) * 2 + head.replace(b"Bearer ", b"Bearer x") + body + head + body)
    statuses = []
    for _ in range(4):
        answer = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
        await reader.readexactly(int(answer.lower().partition(b"content-length:")[2].split()[0]))
        statuses.append(int(answer.split()[1]))
    writer.close()
    assert statuses == [200, 200, 401, 200]
