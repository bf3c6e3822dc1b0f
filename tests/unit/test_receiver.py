"""The receiver that `listen` and the demo use: what it accepts, refuses, and tells about order."""

import asyncio
import json
import time
from collections.abc import AsyncIterator

import aiohttp
import pytest

from broker.signature import sign
from consumers.receiver import Received, Receiver, Sequencer

SECRET, OTHER = "whsec_" + "A" * 32, "whsec_" + "B" * 32


class Listening:
    def __init__(self) -> None:
        self.got: list[Received] = []
        self.receiver = Receiver(self.got.append)
        self.url = ""

    async def post(self, body: object, secret: str = SECRET, raw: bytes | None = None) -> int:
        data = json.dumps(body).encode() if raw is None else raw
        at = int(time.time())
        headers = {
            "webhook-id": "id",
            "webhook-timestamp": str(at),
            "webhook-signature": sign([secret], "id", at, data),
        }
        async with (
            aiohttp.ClientSession() as client,
            client.post(self.url, data=data, headers=headers) as answer,
        ):
            return answer.status


@pytest.fixture
async def listening() -> AsyncIterator[Listening]:
    opened = Listening()
    opened.url = await opened.receiver.start()
    opened.receiver.expect([SECRET], "token")
    yield opened
    await opened.receiver.stop()


def body(counter: int, sender: str = "ada", token: str = "token") -> dict[str, object]:
    return {"senderId": sender, "messageCounter": counter, "verifyToken": token, "message": {"text": "hi"}}


async def test_a_good_delivery_is_taken_and_shown(listening: Listening) -> None:
    assert await listening.post(body(1)) == 200
    (received,) = listening.got
    assert received.body["message"] == {"text": "hi"}
    assert received.checks.good
    assert received.checks.order == "next"


async def test_a_wrong_signature_and_a_wrong_token_are_refused_and_shown(listening: Listening) -> None:
    assert await listening.post(body(1), secret=OTHER) == 401
    assert await listening.post(body(1, token="another")) == 401
    forged, wrong = listening.got
    assert forged.checks.signature is not None
    assert wrong.checks.token is not None
    # What was refused does not count: the true first message is the first.
    await listening.post(body(1))
    assert listening.got[-1].checks.order == "next"


@pytest.mark.parametrize("name", [b"webhook-signature", b"webhook-id", b"webhook-timestamp"])
@pytest.mark.parametrize("odd", [b"\xff\xfe", b"v1,\xc3\xa9", b"\x80"])
async def test_headers_that_are_not_ascii_are_a_refusal_and_no_failure(
    listening: Listening, name: bytes, odd: bytes
) -> None:
    data = json.dumps(body(1)).encode()
    at = int(time.time())
    headers = {
        b"host": b"here",
        b"connection": b"close",
        b"content-length": b"%d" % len(data),
        b"webhook-id": b"id",
        b"webhook-timestamp": b"%d" % at,
        b"webhook-signature": sign([SECRET], "id", at, data).encode(),
        name: odd,
    }
    # By hand: no client library sends such headers.
    port = int(listening.url.rpartition(":")[2])
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    lines = [b"POST / HTTP/1.1", *(key + b": " + value for key, value in headers.items()), b"", data]
    writer.write(b"\r\n".join(lines))
    answer = await asyncio.wait_for(reader.read(), 10)
    writer.close()
    await writer.wait_closed()
    assert answer.startswith(b"HTTP/1.1 401 "), answer
    assert [received.checks.good for received in listening.got] == [False]


@pytest.mark.parametrize("raw", [b"", b"not JSON", b"[]", b'"text"', b"\xff"])
async def test_rubbish_is_refused(listening: Listening, raw: bytes) -> None:
    assert await listening.post(None, raw=raw) == 400
    assert listening.got == []


async def test_the_challenge_is_answered_by_who_knows_the_token(listening: Listening) -> None:
    async with aiohttp.ClientSession() as client:
        async with client.get(listening.url, params={"challenge.verifyToken": "token"}) as answer:
            assert (answer.status, await answer.json()) == (200, {"status": "ok"})
        async with client.get(listening.url, params={"challenge.verifyToken": "guess"}) as answer:
            assert answer.status == 401


def test_repeats_and_gaps_are_told_for_each_conversation_apart() -> None:
    sequence = Sequencer()
    placed = [sequence.place("ada", n) for n in (4, 5, 5, 6, 9, 8, 10)]
    assert placed == ["next", "next", "repeat", "next", "gap", "late", "next"]
    assert sequence.place("bob", 1) == "next"
    assert sequence.place(None, 1) == "unknown"
