"""What counts as an answer of an endpoint, with servers that keep to HTTP and servers that do not."""

import asyncio
import socket
import time

import pytest
from talking_server import (
    OK,
    REQUEST,
    Serving,
    Talk,
    always,
    once,
    once_and_stay,
)

from consumers.http.connection import BrokenAnswer, Connection


@pytest.mark.parametrize(
    "talk",
    [
        once(),
        once(b"HTTP/1.1 20"),
        once_and_stay(b"220 smtp.example ESMTP\r\n"),
        once(b"HTTP/1.1 200 OK"),
        once_and_stay(b"RTSP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n"),
        once_and_stay(b"HTTP/1.1 000 OK\r\n\r\n"),
        once_and_stay(b"HTTP/1.1 200 " + b"x" * 70_000),
        once_and_stay(*[b"HTTP/1.1 102 Wait\r\nX: " + b"x" * 17_000 + b"\r\n\r\n"] * 4),
        once_and_stay(b"HTTP/1.1 102 Wait\r\n\r\n" * 101 + OK),
        once_and_stay(b"HTTP/1.1 102 Wait\r\n\r\n" * 100, b"HTTP/1.1 102 Wait\r\n\r\n"),
        once_and_stay(b"HTTP/1.1 abc OK\r\n\r\n"),
    ],
    ids=[
        "closes",
        "half a line",
        "another protocol",
        "a line without end",
        "much like HTTP",
        "no status",
        "an endless line",
        "long interim answers without end",
        "more interim answers than are waited past",
        "more interim answers than are waited past, in pieces",
        "no number",
    ],
)
async def test_what_is_no_answer_is_broken_and_closes_the_connection(talk: Talk, serving: Serving) -> None:
    async with serving(talk) as (server, pool):
        with pytest.raises((BrokenAnswer, ConnectionError)):
            await pool.exchange(server.origin, REQUEST, 5)
        await server.emptied()


BAD_HEADS = {
    "length beside encoding": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "two equal lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nok",
    "a length that is none": b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\nok",
    "an endless length": b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\nok",
    "two blanks": b"HTTP/1.1  200 OK\r\nContent-Length: 2\r\n\r\nok",
    "a tab": b"HTTP/1.1 200\tOK\r\nContent-Length: 2\r\n\r\nok",
    "small letters": b"http/1.1 200 ok\r\nContent-Length: 2\r\n\r\nok",
    "another version": b"HTTP/3.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
    "a line without a colon": b"HTTP/1.1 200 OK\r\nX\r\nContent-Length: 2\r\n\r\nok",
    "a line without a name": b"HTTP/1.1 200 OK\r\n: x\r\nContent-Length: 2\r\n\r\nok",
    "a blank in a name": b"HTTP/1.1 200 OK\r\nX Y: z\r\nContent-Length: 2\r\n\r\nok",
    "a bare return": b"HTTP/1.1 200 OK\r\nX: a\rb\r\nContent-Length: 2\r\n\r\nok",
    "zeros in a name": b"HTTP/1.1 200 OK\r\nX\x00: y\r\nContent-Length: 2\r\n\r\nok",
    "an interim head": b"HTTP/1.1 103 Hm\r\nno colon\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    "rubbish for a chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nrubbish\r\n",
    "headers without end": b"HTTP/1.1 200 OK\r\nX: " + b"x" * 70_000,
}


@pytest.mark.parametrize("in_one_piece", [True, False], ids=["one piece", "byte by byte"])
@pytest.mark.parametrize("head", BAD_HEADS.values(), ids=BAD_HEADS.keys())
async def test_a_status_line_settles_the_matter_though_what_follows_is_no_http(
    head: bytes, in_one_piece: bool, serving: Serving
) -> None:
    if in_one_piece or len(head) > 1000:
        pieces: tuple[bytes, ...] = (head,)
    else:
        pieces = tuple(bytes((byte,)) for byte in head)
    async with serving(once_and_stay(*pieces), always(OK)) as (server, pool):
        assert (await pool.exchange(server.origin, REQUEST, 5)).status == 200
        assert (await pool.exchange(server.origin, REQUEST, 5)).status == 200
        assert server.visitors == 2, "nothing more is read from such a connection"


@pytest.mark.parametrize(
    "begun", [b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\nServer: half a li", BAD_HEADS["two blanks"][:18]]
)
async def test_a_status_line_settles_the_matter_though_the_headers_never_end(
    begun: bytes, serving: Serving
) -> None:
    async with serving(once(begun), once_and_stay(begun)) as (server, pool):
        assert (await pool.exchange(server.origin, REQUEST, 5)).status == 200
        assert (await pool.exchange(server.origin, REQUEST, 0.3)).status == 200
        await server.emptied()


async def test_of_a_failure_with_a_bad_head_the_body_and_the_wait_are_read(serving: Serving) -> None:
    busy = b"HTTP/1.1 503 Busy\r\nno colon\r\n", b"Retry-After: 7\r\n\r\nbusy"
    async with serving(once_and_stay(*busy)) as (server, pool):
        answer = await pool.exchange(server.origin, REQUEST, 5)
        assert (answer.status, answer.retry_after, answer.beginning) == (503, "7", b"busy")


@pytest.mark.parametrize("pieces", [1, 100])
async def test_interim_answers_are_waited_past_up_to_a_bound(pieces: int, serving: Serving) -> None:
    async with serving(once(*[b"HTTP/1.1 102 Wait\r\n\r\n" * (100 // pieces)] * pieces, OK)) as (
        server,
        pool,
    ):
        assert (await pool.exchange(server.origin, REQUEST, 5)).status == 200


@pytest.mark.parametrize(
    ("before", "endless"),
    [
        (b"", b"\r\n"),
        (b"HTTP/1.1 100 C\r\n\r\n" * 90, b"\n"),
        (b"HTTP/1.1 100 C\r\n\r\n" * 3300, b"\n"),
        (b"", b"HTTP/1.1 100 C\n\n"),
        (b"HTTP/1.1 100 C\r\n", b"a:\n"),
        (b"HTTP/1.1 200 OK\r\n", b"a:\n"),
        (b"HTTP/1.1 200 OK\r\n", b"a\n"),
        (b"HTTP/1.1 200 " + b"x" * 30_000, b"x"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"x" * 30_000, b"x"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;", b"x"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n", b"a:\n"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\na\r\n"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 99999\r\n\r\n", b"x"),
    ],
    ids=[
        "blank lines",
        "blank lines behind interim answers",
        "blank lines behind very many interim answers",
        "interim answers",
        "an interim answer's headers",
        "headers",
        "headers without a colon",
        "a status line",
        "a header",
        "a chunk's extension",
        "trailers",
        "chunks",
        "a body",
    ],
)
async def test_an_answer_that_comes_byte_by_byte_costs_no_more_for_each_byte_the_longer_it_is(
    before: bytes, endless: bytes
) -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        connection = Connection(lambda _: None, lambda _: None)
        transport, _ = await asyncio.get_running_loop().create_connection(lambda: connection, sock=ours)
        waiter = connection.exchange(REQUEST)
        rest = endless * (66_000 // len(endless))
        begun = time.process_time()
        # As the loop does, but for the loop's own work.
        connection.data_received(before)
        for at in range(66_000 - len(before)):
            if waiter.done():
                break
            connection.data_received(rest[at : at + 1])
        took = time.process_time() - begun
        connection.abort()
        await asyncio.gather(waiter, return_exceptions=True)
        transport.abort()
    assert took < 0.5


async def test_the_wait_that_is_asked_for_is_found_however_it_is_written(serving: Serving) -> None:
    def refusing(line: bytes) -> Talk:
        return once_and_stay(
            b"HTTP/1.1 503 Busy\r\nX-Retry-After: 9\r\n" + line + b"\r\nContent-Length: 0\r\n\r\n"
        )

    for line, wait in ((b"Retry-After: 7", "7"), (b"RETRY-AFTER:  8 ", "8 "), (b"Retry-After-X: 1", None)):
        async with serving(refusing(line)) as (server, pool):
            assert (await pool.exchange(server.origin, REQUEST, 5)).retry_after == wait


@pytest.mark.parametrize(
    "pieces",
    [
        (b"HTTP/1.1 503 Busy\r\nContent-Length: 16\r\n\r\nRetry-After: 7\r\n",),
        (b"HTTP/1.1 503 Busy\nContent-Length: 15\n\n", b"Retry-After: 7\n"),
        (b"HTTP/1.1 103 Early\r\nRetry-After: 7\r\n\r\nHTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n",),
        (b"HTTP/1.1 503 Busy\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nRetry-After: 7\r\n\r\n",),
        (b"HTTP/1.1 503 Busy\r\nno colon\r\n\r\nRetry-After: 7\r\n",),
    ],
    ids=["body", "body behind bare line feeds", "interim answer", "trailer", "body behind a bad head"],
)
async def test_no_wait_is_read_out_of_what_is_not_the_final_answers_head(
    pieces: tuple[bytes, ...], serving: Serving
) -> None:
    async with serving(once_and_stay(*pieces)) as (server, pool):
        answer = await pool.exchange(server.origin, REQUEST, 5)
        assert (answer.status, answer.retry_after) == (503, None)
