"""What a connection without a token may cost: its time, its bytes and its number are bounded at each stage.

With real sockets on a server as the product makes it, whose deadlines are shorter.
"""

import asyncio
import gzip
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import cache
from typing import Any

import pytest
from aiohttp import ClientSession

from broker import __version__
from broker.api import bodies
from broker.api.app import make_app
from broker.api.connection import Limits
from broker.api.connections import listening
from broker.registry.channels import Channels

#: Deadlines of the tests, and what a busy machine may add, in seconds.
SHORT_S, CLOCK_S = 0.5, 4.0
SHORT = Limits(head_s=SHORT_S, idle_s=SHORT_S, look_s=0.1)
#: As the product has them, for what has to end by itself within them.
PATIENT = Limits(look_s=0.1)
HEALTHZ = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"


class Line:
    """One connection, as a client that keeps to nothing uses it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def send(self, *pieces: bytes, every_s: float = 0.0) -> int:
        """Send pieces until the server hangs up; returns how many bytes it took from us."""
        sent = 0
        try:
            for piece in pieces:
                self.writer.write(piece)
                await self.writer.drain()
                sent += len(piece)
                await asyncio.sleep(every_s)
        except ConnectionError:
            pass
        return sent

    async def answer(self) -> tuple[int, dict[str, str], bytes]:
        """Read one answer: status, headers by lower-case name, body."""
        async with asyncio.timeout(CLOCK_S):
            head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
            headers = {
                name.lower(): value.strip() for name, _, value in (one.partition(":") for one in head[1:-2])
            }
            body = await self.reader.readexactly(int(headers["content-length"]))
        return int(head[0].split()[1]), headers, body

    async def rest(self) -> bytes:
        """Read until the server hangs up; fails where it does not in time."""
        got = b""
        async with asyncio.timeout(SHORT_S + CLOCK_S):
            try:
                while piece := await self.reader.read(65536):
                    got += piece
            except ConnectionError:
                pass
        return got


Connect = Callable[[], Any]


@pytest.fixture
def serving(parts: Any) -> Callable[[Limits], Any]:
    """Serve the API as the product does, under limits of the test's own; gives what connects to it."""

    @asynccontextmanager
    async def served(limits: Limits) -> AsyncIterator[Connect]:
        lines: list[Line] = []
        async with listening(make_app(parts), "127.0.0.1", 0, limits, 0.5) as (host, port):

            async def connect() -> Line:
                lines.append(Line(*await asyncio.open_connection(host, port)))
                return lines[-1]

            connect.url = f"http://{host}:{port}"  # type: ignore[attr-defined]
            yield connect
            for line in lines:
                line.writer.transport.abort()

    return served


def is_problem(answer: tuple[int, dict[str, str], bytes], status: int) -> bool:
    found, headers, body = answer
    assert headers["content-type"] == "application/problem+json", body
    assert headers["server"] == f"Postbote/{__version__}"
    return bool(found == status == json.loads(body)["status"])


async def test_a_connection_that_sends_nothing_is_closed(serving):
    async with serving(SHORT) as connect:
        line = await connect()
        assert await line.rest() == b""


@pytest.mark.parametrize(
    "pieces",
    [
        [b"GET /heal"],
        [b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-"],
        [b"GET /healthz HTTP/1.1\r\nHost: x\r\nA: b\r\n"],
        [b"GET /healthz HTTP/1.1\r\nHost: x\r\nA: b\r\n\r"],
        # One byte after the other, for far longer than headers may take.
        [bytes([byte]) for byte in b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-Long: " + b"y" * 200],
        # An empty line before a request is not the end of its headers.
        [b"\r\n\r\nGET /healthz HTTP/1.1\r\nHost: x\r\n"],
        [b"\r\n", b"\r\n", b"GET /healthz HTTP/1.1\r\n"],
    ],
)
async def test_headers_that_do_not_come_in_time_are_408(serving, pieces):
    async with serving(SHORT) as connect:
        line = await connect()
        sending = asyncio.create_task(line.send(*pieces, every_s=0.02))
        assert is_problem(await line.answer(), 408)
        assert await line.rest() == b""
        await sending


async def test_headers_in_single_bytes_are_read_while_there_is_time(serving):
    async with serving(PATIENT) as connect:
        line = await connect()
        await line.send(*[bytes([byte]) for byte in b"\r\n" + HEALTHZ * 2], every_s=0.001)
        for _ in range(2):
            assert (await line.answer())[0] == 200


async def test_a_connection_that_is_not_used_any_more_is_closed_whatever_came_before(serving):
    async with serving(SHORT) as connect:
        idle, half, pipelined = await connect(), await connect(), await connect()
        await idle.send(HEALTHZ)
        await half.send(HEALTHZ + b"GET /he")
        await pipelined.send(HEALTHZ * 20 + b"GET /he")
        for line, number in ((idle, 1), (half, 1), (pipelined, 20)):
            for _ in range(number):
                assert (await line.answer())[0] == 200
        for line in (idle, half, pipelined):
            assert b"200 OK" not in await line.rest()


async def test_an_answer_that_is_not_fetched_holds_a_connection_for_no_longer(serving):
    async with serving(SHORT) as connect:
        line = await connect()
        line.writer.transport.pause_reading()
        # More than all buffers on the way hold.
        await line.send(b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n" * 400)
        async with asyncio.timeout(SHORT_S + CLOCK_S):
            while await line.send(b"\r\n", every_s=0.1):
                pass


async def test_a_body_that_does_not_come_in_time_is_408(serving, parts, monkeypatch):
    monkeypatch.setattr(bodies, "BODY_S", SHORT_S)
    channel, token = await Channels(parts.database).create("Shop", {"type": "echo"}, "pssst")
    messages = (
        f"POST /v1/channels/webhook/{channel.id}/messages HTTP/1.1\r\nAuthorization: Bearer {token}\r\n"
    )
    legacy = f"POST /api/webhookMessage/{channel.id} HTTP/1.1\r\n"
    async with serving(PATIENT) as connect:
        for head in (messages, legacy):
            for length in ("Content-Length: 1000\r\n\r\n", "Transfer-Encoding: chunked\r\n\r\n3e8\r\n"):
                line = await connect()
                sending = asyncio.create_task(
                    line.send(f"{head}Host: x\r\n{length}".encode(), *[b" "] * 500, every_s=0.02)
                )
                assert is_problem(await line.answer(), 408)
                await line.rest()
                await sending


@pytest.mark.parametrize(
    "headers",
    [
        # Each is as long as one may be; together they are too much.
        b"".join(b"X-%d: %s\r\n" % (number, b"y" * 8000) for number in range(100)),
        b"X-One: " + b"y" * 40_000 + b"\r\n",
    ],
)
async def test_headers_of_more_than_32_kb_in_all_are_431(serving, headers):
    async with serving(PATIENT) as connect:
        whole = b"GET /healthz HTTP/1.1\r\nHost: x\r\n" + headers
        for first in (b"", HEALTHZ):
            line = await connect()
            if first:
                await line.send(first)
                assert (await line.answer())[0] == 200
            # In the pieces in which a network brings them.
            sending = asyncio.create_task(
                line.send(*[whole[at : at + 1400] for at in range(0, len(whole), 1400)], every_s=0.001)
            )
            assert is_problem(await line.answer(), 431)
            await line.rest()
            assert await sending < 128 * 1024


@pytest.mark.parametrize(
    ("method_and_path", "status"),
    [
        ("POST /v1/channels", 401),
        ("POST /v1/channels/webhook/CHANNEL/messages", 401),
        ("POST /api/webhookMessage/CHANNEL", 413),
        ("POST /api/webhookMessage/nobody", 404),
        ("GET /healthz", 200),
        ("PUT /healthz", 405),
        ("POST /nothing/here", 404),
    ],
)
@pytest.mark.parametrize("framing", ["Content-Length: 100000000000", "Transfer-Encoding: chunked"])
async def test_a_body_without_end_is_not_read_on_after_the_answer(
    serving, parts, method_and_path, status, framing
):
    channel, _ = await Channels(parts.database).create("Shop", {"type": "echo"})
    chunk = b"8000\r\n" + b"[" * 0x8000 + b"\r\n" if "chunked" in framing else b"[" * 0x8000
    head = f"{method_and_path.replace('CHANNEL', channel.id)} HTTP/1.1\r\nHost: x\r\n{framing}\r\n\r\n"
    async with serving(PATIENT) as connect:
        line = await connect()
        began = time.monotonic()
        sending = asyncio.create_task(line.send(head.encode(), *[chunk] * 4096))
        assert (await line.answer())[0] == status
        await line.rest()
        # What the kernels of both sides hold is sent too.
        assert await sending < 16 * 1024 * 1024
        assert time.monotonic() - began < CLOCK_S


async def test_a_client_that_sends_its_body_after_the_answer_may_use_the_connection_again(serving):
    async with serving(PATIENT) as connect:
        line = await connect()
        for _ in range(3):
            await line.send(b"POST /v1/channels HTTP/1.1\r\nHost: x\r\nContent-Length: 20000\r\n\r\n")
            assert (await line.answer())[0] == 401
            await line.send(b"x" * 20_000)


@cache
def bomb() -> bytes:
    """Make a quarter of a megabyte that unpacks to 256."""
    return gzip.compress(bytes(1 << 28), 9)


@pytest.mark.parametrize("path", ["/healthz", "/v1/channels", "/v1/channels/webhook/x/messages", "/nothing"])
async def test_a_packed_body_is_unpacked_for_nobody(serving, path):
    async with serving(PATIENT) as connect, ClientSession() as session:
        packed = bomb()
        used = time.process_time()
        headers = {"Content-Encoding": "gzip", "Content-Type": "application/json"}
        async with session.post(connect.url + path, data=packed, headers=headers) as answer:
            assert answer.status in (401, 404, 405)
        assert time.process_time() - used < 0.2


async def test_where_there_are_too_many_connections_the_one_that_waits_for_longest_makes_room(serving):
    async with serving(Limits(most=5, look_s=0.1)) as connect:
        used = await connect()
        await used.send(HEALTHZ)
        assert (await used.answer())[0] == 200
        silent = [await connect() for _ in range(4)]
        # More of them than there may be, one after the other; each finds its place.
        for _ in range(10):
            line = await connect()
            await line.send(HEALTHZ)
            assert (await line.answer())[0] == 200
            line.writer.close()
        assert await silent[0].rest() == b""
        crowd = [await connect() for _ in range(50)]
        line = await connect()
        await line.send(HEALTHZ)
        assert (await line.answer())[0] == 200
        for one in (*silent, *crowd[:46]):
            assert await one.rest() == b""


async def test_requests_in_hand_are_not_cut_off_for_new_connections(serving, parts):
    channel, token = await Channels(parts.database).create("Shop", {"type": "echo"})
    head = (
        f"POST /v1/channels/webhook/{channel.id}/messages HTTP/1.1\r\nHost: x\r\n"
        f"Authorization: Bearer {token}\r\nContent-Length: 65\r\nExpect: 100-continue\r\n\r\n"
    )
    body = b'{"message":{"textMessage":{"text":"hello"}},"user":{"id":"u"}}   '
    async with serving(Limits(most=3, look_s=0.1)) as connect:
        busy = [await connect() for _ in range(3)]
        for line in busy:
            await line.send(head.encode())
            assert await line.reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        async with asyncio.timeout(CLOCK_S):
            while (await (late := await connect()).send(HEALTHZ)) and await late.rest():
                pass
        for line in busy:
            await line.send(body)
            assert (await line.answer())[0] == 200
        line = await connect()
        await line.send(HEALTHZ)
        assert (await line.answer())[0] == 200


ECHO = b"xyzzy-secret"


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (ECHO + b"\r\n\r\n", 400),
        (b"GET / HTTP/9.9\r\nA: " + ECHO + b"\r\n\r\n", 400),
        (b"GET /" + ECHO + b" HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: x\r\n" + ECHO + b"\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: x\r\nHost: " + ECHO + b"\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: x\r\n(" + ECHO + b"): y\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: " + ECHO + b"\r\n\r\n", 400),
        (
            b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n" + ECHO,
            400,
        ),
        (b"GET / HTTP/1.1\r\nHost: x\r\n" + b"A: b\r\n" * 500 + ECHO + b": b\r\n\r\n", 400),
        (b"GET /" + ECHO * 1000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\nHost: x\r\nA: " + ECHO * 1000 + b"\r\n\r\n", 431),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01" + ECHO, 400),
        (b"GET /nothing HTTP/1.1\r\nHost: x\r\nExpect: " + ECHO + b"\r\n\r\n", 417),
        (b"GET /healthz HTTP/1.1\r\nHost: x\r\nExpect: " + ECHO + b"\r\n\r\n", 417),
        (b"GET http://" + ECHO + b":99999/ HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"CONNECT " + ECHO + b":1 HTTP/1.1\r\nHost: x\r\n\r\n", 404),
        (b"BREW / HTTP/1.1\r\nHost: " + ECHO + b"\r\n\r\n", 400),
    ],
)
async def test_what_the_http_library_refuses_is_a_problem_that_repeats_nothing(serving, sent, status):
    async with serving(PATIENT) as connect:
        line = await connect()
        await line.send(sent)
        answer = await line.answer()
        assert is_problem(answer, status)
        assert ECHO not in answer[2]
        assert "aiohttp" not in str(answer[1])
        assert answer[1]["cache-control"] == "no-store"


async def test_the_older_form_is_proven_before_the_rest_of_it_is_looked_at(serving, parts):
    channel, _ = await Channels(parts.database).create("Shop", {"type": "echo"}, "pssst")
    url = f"/api/webhookMessage/{channel.id}"
    async with serving(PATIENT) as connect, ClientSession() as session:
        wrong = {"verifyToken": "wrong", "text": [0] * 15_000, "sender": {"id": [0]}}
        async with session.post(connect.url + url, json=wrong) as answer:
            assert answer.status == 401, await answer.text()
        async with session.post(connect.url + url, json={**wrong, "verifyToken": "pssst"}) as answer:
            assert answer.status == 422
        # What is too large is refused before it comes.
        line = await connect()
        await line.send(f"POST {url} HTTP/1.1\r\nHost: x\r\nContent-Length: 240000\r\n\r\n".encode())
        assert is_problem(await line.answer(), 413)


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"%s", 401),
        (b'{"verifyToken":%s}', 422),
        (b'{"text":%s}', 401),
        (b'{"verifyToken":"wrong","text":%s,"sender":{}}', 401),
    ],
)
async def test_a_crowd_at_the_older_door_with_a_wrong_token_costs_little_more_than_one_elsewhere(
    serving, parts, body, status
):
    channel, _ = await Channels(parts.database).create("Shop", {"type": "echo"}, "pssst")
    rubbish = body % (b"[" + b"0," * 30_000 + b"0]")
    async with serving(PATIENT) as connect, ClientSession() as session:

        async def cost(path: str, expected: int) -> float:
            """Measure what twenty of them take of this process, the client with the server."""
            used = time.process_time()
            for _ in range(20):
                headers = {"Content-Type": "application/json"}
                async with session.post(connect.url + path, data=rubbish, headers=headers) as answer:
                    assert answer.status == expected
            return time.process_time() - used

        older, elsewhere = f"/api/webhookMessage/{channel.id}", "/nothing/here"
        costs = [(await cost(older, status), await cost(elsewhere, 404)) for _ in range(4)]
        assert min(one for one, _ in costs) < 10 * min(other for _, other in costs), costs
