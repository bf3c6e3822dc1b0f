"""Exchanges over kept connections, with servers that keep to HTTP and servers that do not."""

import asyncio

import pytest
from talking_server import (
    LOOPBACK,
    NO_CONTENT,
    OK,
    REQUEST,
    OurSide,
    Serving,
    Talk,
    Visitor,
    always,
    once,
    once_and_stay,
)

from consumers.http.connection import BrokenAnswer, Connection
from consumers.http.opening import AddressRefused, NameNotResolved, Opener, Origin
from consumers.http.pool import Pool


@pytest.mark.parametrize(
    ("pieces", "status", "body"),
    [
        ((OK,), 200, b"ok"),
        ((NO_CONTENT,), 204, b""),
        (tuple(bytes((byte,)) for byte in OK),
         200, b"ok"),
        ((b"HTTP/1.1 100 Continue\r\n\r\n", OK), 200, b"ok"),
        ((b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + OK,), 200, b"ok"),
        ((b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"2\r\nok\r\n", b"0\r\n\r\n"), 200, b"ok"),
        ((b"HTTP/1.1 200 OK\nContent-Length: 2\n\nok",), 200, b"ok"),
        ((b"HTTP/1.1 200 OK\r\nUpgrade: h2,h2c\r\nConnection: Upgrade\r\nContent-Length: 2\r\n\r\nok",), 200, b"ok"),
        ((b"HTTP/1.1 500 \r\nContent-Length: 2\r\n\r\nok",), 500, b"ok"),
    ],
    ids=["whole", "no content", "byte by byte", "continue", "early hints", "chunked", "bare line feeds",
         "offers an upgrade", "no reason"],
)  # fmt: skip
async def test_an_answer_is_read_and_its_connection_kept(
    pieces: tuple[bytes, ...], status: int, body: bytes, serving: Serving
) -> None:
    async with serving(always(*pieces)) as (server, pool):
        for _ in range(3):
            answer = await pool.exchange(server.origin, REQUEST, 5)
            assert (answer.status, answer.beginning) == (status, body)
        assert server.visitors == 1


@pytest.mark.parametrize(
    "piece",
    [
        b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok",
        OK + b"what nobody asked for",
        OK + OK,
        b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok surplus",
    ],
    ids=["1.0", "close", "rubbish behind it", "an answer to nothing", "more than it said"],
)
async def test_a_connection_that_cannot_be_trusted_is_not_used_again(piece: bytes, serving: Serving) -> None:
    async with serving(once_and_stay(piece)) as (server, pool):
        for _ in range(2):
            answer = await pool.exchange(server.origin, REQUEST, 5)
            assert (answer.status, answer.beginning) == (200, b"ok")
        await server.emptied()
        assert server.visitors == 2


async def test_what_comes_while_nobody_asks_closes_the_connection(serving: Serving) -> None:
    async def impatient(visitor: Visitor) -> None:
        await visitor.asks()
        await visitor.gets(OK, NO_CONTENT)
        await visitor.leaves()

    async with serving(impatient, always(OK)) as (server, pool):
        assert (await pool.exchange(server.origin, REQUEST, 5)).status == 200
        await server.emptied()
        assert (await pool.exchange(server.origin, REQUEST, 5)).status == 200
        assert server.visitors == 2


async def test_a_connection_that_the_server_closed_meanwhile_is_not_used_again(
    serving: Serving, our_side: OurSide
) -> None:
    async with serving(once(OK), always(OK)) as (server, pool):
        assert (await pool.exchange(server.origin, REQUEST, 5)).status == 200
        await our_side.until(lambda: our_side.ends == 1)
        assert (await pool.exchange(server.origin, REQUEST, 5)).status == 200


async def test_switching_protocols_is_an_answer_like_any_other(serving: Serving) -> None:
    switching = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\nbinary"
    async with serving(once_and_stay(switching)) as (server, pool):
        assert (await pool.exchange(server.origin, REQUEST, 5)).status == 101
        await server.emptied()


async def test_an_answer_whose_body_ends_with_the_connection_is_whole(serving: Serving) -> None:
    async with serving(once(b"HTTP/1.1 200 OK\r\n\r\n", b"until the end")) as (server, pool):
        answer = await pool.exchange(server.origin, REQUEST, 5)
        assert (answer.status, answer.beginning) == (200, b"until the end")


async def test_the_end_of_the_time_is_no_failure_where_the_status_line_is_here(serving: Serving) -> None:
    begun = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nbegun"
    async with serving(once_and_stay(begun)) as (server, pool):
        answer = await pool.exchange(server.origin, REQUEST, 0.3)
        assert (answer.status, answer.beginning) == (200, b"begun")
        await server.emptied()


async def test_without_an_answer_in_time_the_connection_is_closed_new_or_kept(serving: Serving) -> None:
    async def then_silent(visitor: Visitor) -> None:
        await visitor.asks()
        await visitor.gets(OK)
        await visitor.leaves()

    async with serving(then_silent, once_and_stay()) as (server, pool):
        assert (await pool.exchange(server.origin, REQUEST, 5)).status == 200
        for _ in range(2):
            with pytest.raises(TimeoutError):
                await pool.exchange(server.origin, REQUEST, 0.1)
        await server.emptied()
        assert server.visitors == 2


async def test_who_gives_up_waiting_takes_the_connection_along(serving: Serving) -> None:
    async with serving(once_and_stay()) as (server, pool):
        asking = asyncio.create_task(pool.exchange(server.origin, REQUEST, 5))
        await server.changed.wait()
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        await server.emptied()


async def test_who_gives_up_an_exchange_that_has_ended_does_not_break_the_next_one(serving: Serving) -> None:
    async with serving(always(OK)) as (server, _):
        opener = Opener(LOOPBACK)
        resolved = await opener.resolve(server.origin)
        connection = await opener.open(
            server.origin, resolved, lambda: Connection(lambda _: None, lambda _: None)
        )
        first = connection.exchange(REQUEST)
        await first
        second = connection.exchange(REQUEST)
        connection.expire(first)
        connection.give_up(first)
        assert (await second).status == 200
        connection.abort()
        await server.emptied()
        opener.close()


def closing_as_the_second_request_comes(last_words: bytes = b"") -> Talk:
    async def talk(visitor: Visitor) -> None:
        await visitor.asks()
        await visitor.gets(OK)
        await visitor.asks()
        await visitor.gets(last_words)

    return talk


@pytest.mark.parametrize(
    "last_words",
    [b"", b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"],
    ids=["silently", "408"],
)
async def test_a_kept_connection_that_ends_as_the_request_goes_out_is_nobodys_failure(
    last_words: bytes, serving: Serving
) -> None:
    async with serving(closing_as_the_second_request_comes(last_words)) as (server, pool):
        for _ in range(4):
            answer = await pool.exchange(server.origin, REQUEST, 5)
            assert (answer.status, answer.beginning) == (200, b"ok")
        assert server.visitors == 4, "the first answer on each connection is the last one"


async def test_a_request_is_repeated_once_and_only_where_no_byte_of_an_answer_came(serving: Serving) -> None:
    async with serving(closing_as_the_second_request_comes(), once()) as (server, pool):
        assert (await pool.exchange(server.origin, REQUEST, 5)).status == 200
        with pytest.raises((BrokenAnswer, ConnectionError)):
            await pool.exchange(server.origin, REQUEST, 5)
        assert server.visitors == 2
    async with serving(closing_as_the_second_request_comes(b"HTTP/1.1 20"), always(OK)) as (server, pool):
        assert (await pool.exchange(server.origin, REQUEST, 5)).status == 200
        with pytest.raises((BrokenAnswer, ConnectionError)):
            await pool.exchange(server.origin, REQUEST, 5)
        assert server.visitors == 1
    async with serving(once(), always(OK)) as (server, pool):
        with pytest.raises((BrokenAnswer, ConnectionError)):
            await pool.exchange(server.origin, REQUEST, 5)
        assert server.visitors == 1, "a new connection that ends is an endpoint that fails"


async def test_a_server_that_says_how_long_it_keeps_a_connection_is_believed(serving: Serving) -> None:
    def keeping(seconds: int) -> bytes:
        return OK.replace(b"\r\n\r\n", b"\r\nKeep-Alive: timeout=%d\r\n\r\n" % seconds)

    async with serving(always(keeping(0)), always(keeping(60))) as (server, pool):
        for _ in range(3):
            assert (await pool.exchange(server.origin, REQUEST, 5)).status == 200
        assert server.visitors == 2


async def test_what_was_idle_for_too_long_is_closed_though_nobody_asks(serving: Serving) -> None:
    brief = OK.replace(b"\r\n\r\n", b"\r\nKeep-Alive: timeout=1\r\n\r\n")
    async with serving(always(brief)) as (server, pool):
        assert (await pool.exchange(server.origin, REQUEST, 5)).status == 200
        await server.emptied()


async def test_of_a_body_without_end_the_beginning_is_kept_and_the_connection_closed(
    serving: Serving, our_side: OurSide
) -> None:
    async def endless(visitor: Visitor) -> None:
        await visitor.asks()
        await visitor.gets(b"HTTP/1.1 500 Oh\r\nTransfer-Encoding: chunked\r\n\r\n")
        while not our_side.ends:
            await visitor.gets(b"400\r\n" + b"x" * 0x400 + b"\r\n")

    async with serving(endless) as (server, pool):
        answer = await pool.exchange(server.origin, REQUEST, 5)
        assert (answer.status, answer.beginning) == (500, b"x" * 4096)
        await server.emptied()


async def test_an_answer_before_the_request_was_read_leaves_no_connection_behind(serving: Serving) -> None:
    async def early(visitor: Visitor) -> None:
        await visitor.asks()
        await visitor.gets(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n")
        await visitor.leaves()

    large = REQUEST.replace(b"Content-Length: 2", b"Content-Length: 20000000") + b"x" * 20_000_000
    async with serving(early) as (server, pool):
        assert (await pool.exchange(server.origin, large, 5)).status == 413
        await server.emptied()


async def test_names_and_addresses_that_cannot_be_reached_are_told_apart() -> None:
    pool = Pool(())
    try:
        with pytest.raises(NameNotResolved, match=r"no-such-host\.invalid"):
            await pool.exchange(Origin("no-such-host.invalid", 80, tls=False), REQUEST, 5)
        with pytest.raises(AddressRefused, match="POSTBOTE_WEBHOOK_ALLOW_NETWORKS"):
            await pool.exchange(Origin("127.0.0.1", 80, tls=False), REQUEST, 5)
    finally:
        await pool.close()


async def test_many_at_a_time_each_get_their_own_answer_over_as_many_connections(serving: Serving) -> None:
    async def echo(visitor: Visitor) -> None:
        while True:
            await visitor.asks()
            await visitor.gets(OK)

    async with serving(echo) as (server, pool):
        for _ in range(3):
            answers = await asyncio.gather(*(pool.exchange(server.origin, REQUEST, 5) for _ in range(20)))
            assert {answer.status for answer in answers} == {200}
        assert server.visitors == 20
