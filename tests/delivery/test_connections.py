"""Exchanges over kept connections, with servers that keep to HTTP and servers that do not."""

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from ipaddress import ip_network

import pytest

from consumers.http.connection import BrokenAnswer, Connection
from consumers.http.opening import AddressRefused, NameNotResolved, Opener, Origin
from consumers.http.pool import Pool

LOOPBACK = (ip_network("127.0.0.0/8"),)
REQUEST = b"POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 2\r\n\r\nhi"
NO_CONTENT = b"HTTP/1.1 204 No Content\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
Talk = Callable[["Visitor"], Awaitable[None]]


class OurSide:
    """What our side of the connections has seen: the tests wait for that, rather than for a time."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.reads = self.ends = 0
        self._changed = asyncio.Event()
        received, lost = Connection.data_received, Connection.connection_lost

        def data_received(connection: Connection, data: bytes) -> None:
            received(connection, data)
            self.reads += 1
            self._changed.set()

        def connection_lost(connection: Connection, exc: Exception | None) -> None:
            lost(connection, exc)
            self.ends += 1
            self._changed.set()

        monkeypatch.setattr(Connection, "data_received", data_received)
        monkeypatch.setattr(Connection, "connection_lost", connection_lost)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait for something that it sees."""
        async with asyncio.timeout(5):
            while not condition():
                self._changed.clear()
                await self._changed.wait()


@pytest.fixture(autouse=True)
async def our_side(monkeypatch: pytest.MonkeyPatch) -> OurSide:
    """Watch our side."""
    return OurSide(monkeypatch)


class Visitor:
    """One connection as the server sees it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, other: OurSide) -> None:
        self._reader = reader
        self._writer = writer
        self._other = other

    async def asks(self) -> None:
        """Read one request; raises IncompleteReadError where the connection ends."""
        await self._reader.readexactly(len(REQUEST))

    async def gets(self, *pieces: bytes) -> None:
        """Send pieces, each once the other side has read the one before, or has left."""
        for piece in pieces:
            reads, ends = self._other.reads, self._other.ends
            self._writer.write(piece)
            await self._writer.drain()
            if piece:
                await self._other.until(lambda: (self._other.reads, self._other.ends) != (reads, ends))  # noqa: B023

    async def leaves(self) -> None:
        """Wait until the other side closes the connection."""
        await self._reader.read()


class Server:
    """Talks to each connection in its turn, and counts them."""

    def __init__(self, our_side: OurSide, *talks: Talk) -> None:
        self._our_side = our_side
        self._talks = list(talks)
        self.visitors = 0
        self.left = 0
        self.origin = Origin("127.0.0.1", 0, tls=False)
        self._tasks: set[asyncio.Task[None]] = set()
        self.changed = asyncio.Event()

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection."""
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        talk = self._talks[min(self.visitors, len(self._talks) - 1)]
        self.visitors += 1
        try:
            self.changed.set()
            await talk(Visitor(reader, writer, self._our_side))
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            writer.close()
            self.left += 1
            self.changed.set()

    async def emptied(self) -> None:
        """Wait until nobody is connected any more."""
        async with asyncio.timeout(5):
            while self.left < self.visitors:
                self.changed.clear()
                await self.changed.wait()

    async def end(self) -> None:
        """Stop talking."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


Serving = Callable[..., AbstractAsyncContextManager[tuple[Server, Pool]]]


@pytest.fixture
def serving(our_side: OurSide) -> Serving:
    """Serve each connection by one of the talks, in order."""
    return lambda *talks: serve(our_side, *talks)


@asynccontextmanager
async def serve(our_side: OurSide, *talks: Talk) -> AsyncIterator[tuple[Server, Pool]]:
    server, pool = Server(our_side, *talks), Pool(LOOPBACK)
    listening = await asyncio.start_server(server.connected, "127.0.0.1", 0)
    server.origin = Origin("127.0.0.1", listening.sockets[0].getsockname()[1], tls=False)
    try:
        yield server, pool
    finally:
        await pool.close()
        listening.close()
        await server.end()


def always(*pieces: bytes) -> Talk:
    async def talk(visitor: Visitor) -> None:
        while True:
            await visitor.asks()
            await visitor.gets(*pieces)

    return talk


def once(*pieces: bytes) -> Talk:
    async def talk(visitor: Visitor) -> None:
        await visitor.asks()
        await visitor.gets(*pieces)

    return talk


def once_and_stay(*pieces: bytes) -> Talk:
    async def talk(visitor: Visitor) -> None:
        await visitor.asks()
        await visitor.gets(*pieces)
        await visitor.leaves()

    return talk


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
