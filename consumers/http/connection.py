"""One connection to an endpoint, HTTP/1.1 with keep-alive: a request is written in one piece, its answer read.

Only what a webhook needs: one request at a time, of an answer its status, its Retry-After and the beginning of its
body. Parsing is left to llhttp. The status line settles the matter: whatever is wrong behind it, in the headers or in
the body, and whatever trickles or never ends, costs the connection and not the answer.
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import httptools

from consumers.http.head import MOST_INTERIM, SWITCHING, Head, HeadReader, idle_s, retry_after

#: Of an answer's body this much is kept, in bytes.
KEPT_BODY = 4096
#: How long to wait for the rest of an answer whose status line is here, in seconds.
BODY_S = 2.0
#: How much may come before the end of an answer's headers, in bytes.
LARGEST_HEAD = 65_536
#: As clients generally do: some servers end lines without a carriage return, or put spaces where none belong.
_LENIENT = {
    "lenient_headers": True,
    "lenient_optional_cr_before_lf": True,
    "lenient_spaces_after_chunk_size": True,
}


class BrokenAnswer(Exception):
    """What came is no answer of HTTP, or the connection ended before there was one."""


@dataclass(slots=True)
class Answer:
    """What an endpoint answered. Not frozen, as freezing costs more than all else about it."""

    status: int
    #: The header's value as it came; None where there is none, or the answer is a success.
    retry_after: str | None
    #: The first `KEPT_BODY` bytes of the body.
    beginning: bytes
    #: When the headers were here, by `time.perf_counter`, and when nothing more was waited for.
    headed_at: float
    ended_at: float


class Connection(asyncio.Protocol):
    """Carries one exchange at a time. `idle` is called whenever it can carry another, `lost` when it never will."""

    __slots__ = (
        "_body",
        "_body_timer",
        "_complete",
        "_head",
        "_head_reader",
        "_headed",
        "_headed_at",
        "_idle",
        "_interim",
        "_keeps",
        "_loop",
        "_lost",
        "_parser",
        "_status",
        "_surplus",
        "_transport",
        "_unreadable",
        "_waiter",
        "idle_s",
        "idle_until",
        "unanswered",
    )

    def __init__(self, idle: Callable[["Connection"], None], lost: Callable[["Connection"], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._idle = idle
        self._lost = lost
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._parser.set_dangerous_leniencies(**_LENIENT)
        self._waiter: asyncio.Future[Answer] | None = None
        self._body_timer: asyncio.TimerHandle | None = None
        #: How long it may be idle, in seconds; None before its first answer. And until when, by the loop's clock.
        self.idle_s: float | None = None
        self.idle_until = 0.0
        #: True where the exchange that failed had not a byte of an answer.
        self.unanswered = False
        #: What came until the end of the headers (grown in place where it comes in pieces), and of the body.
        self._head: bytes | bytearray = b""
        self._head_reader: HeadReader | None = None
        self._body = b""
        #: How many interim answers llhttp has read.
        self._interim = 0
        #: 0 until the status line is here.
        self._status = 0
        self._headed_at = 0.0
        #: Whether llhttp has read the headers to their end, or has given up.
        self._headed = self._unreadable = False
        self._complete = self._keeps = self._surplus = False

    @property
    def open(self) -> bool:
        """True from when it is made until either side closes it."""
        return self._transport is not None and not self._transport.is_closing()

    def exchange(self, request: bytes) -> "asyncio.Future[Answer]":
        """Write a request; what is returned ends with its answer, or with BrokenAnswer, TimeoutError or OSError.

        Whoever does not want to wait any more calls `give_up` with it.
        """
        waiter: asyncio.Future[Answer] = self._loop.create_future()
        if self._transport is None or self._transport.is_closing():
            waiter.set_exception(BrokenAnswer("the connection was closed without an answer"))
        else:
            self._waiter = waiter
            self._transport.write(request)
        return waiter

    def expire(self, waiter: "asyncio.Future[Answer]") -> None:
        """End an exchange whose time is up: with its answer where the status line is here, else with TimeoutError.

        Does nothing where it has ended: the connection may carry another one by now.
        """
        if self._waiter is not waiter:
            return
        if self._status:
            self._finish()
        else:
            self._fail(TimeoutError())
            self.abort()

    def give_up(self, waiter: "asyncio.Future[Answer]") -> None:
        """Close the connection where it still carries this exchange."""
        if self._waiter is waiter:
            self.abort()

    def abort(self) -> None:
        """Close the connection at once; an exchange that is under way is not answered."""
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the event loop."""
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by the event loop: what has its status line is an answer, also where its body ends here."""
        self._transport = None
        self._lost(self)
        if self._status:
            self._finish()
        else:
            self._fail(exc or BrokenAnswer("the connection was closed without an answer"))

    def data_received(self, data: bytes) -> None:
        """Called by the event loop."""
        if self._waiter is None:
            # Nobody asked: what follows cannot be told apart from an answer to the next request.
            self.abort()
            return
        heading = not self._headed
        if heading:
            if not self._head:
                self._head = data
            elif isinstance(self._head, bytearray):
                self._head += data
            else:
                self._head = bytearray(self._head + data)
        gave_up = False
        if not self._unreadable:
            try:
                self._parser.feed_data(data)
            except httptools.HttpParserUpgrade:
                self._complete, self._keeps = True, False
            except httptools.HttpParserError:
                self._unreadable = gave_up = True
                self._keeps = False
        if not self._headed or (heading and not self._head.startswith(b"HTTP/")):
            # For a while without the end of a line there is nothing new to see.
            if gave_up or b"\n" in data or len(self._head) > LARGEST_HEAD:
                self._look_at_head()
        elif self._complete or self._unreadable or len(self._body) >= KEPT_BODY:
            self._finish()
        elif self._body_timer is None:
            self._body_timer = self._loop.call_later(BODY_S, self._finish)

    def _look_at_head(self) -> None:
        """Go by what is here of an answer whose head llhttp has not read, or takes for another protocol's."""
        head = self._head_reader = self._head_reader or HeadReader()
        try:
            head.read(self._head)
        except ValueError as error:
            self._break_off(str(error))
            return
        long = len(self._head) > LARGEST_HEAD
        if not head.status:
            if long:
                self._break_off(f"its headers are longer than {LARGEST_HEAD} bytes")
            return
        if not self._status:
            self._status = head.status
            self._headed_at = time.perf_counter()
        if long or self._complete or (self._unreadable and head.body_at is not None):
            self._keeps = False
            if not self._headed and head.body_at is not None:
                self._body = bytes(self._head[head.body_at : head.body_at + KEPT_BODY])
            self._finish()
        elif self._body_timer is None:
            self._body_timer = self._loop.call_later(BODY_S, self._finish)

    def on_message_begin(self) -> None:
        """Called by the parser: what follows a whole answer was not asked for, and might be taken for the next."""
        self._surplus = self._complete

    def on_headers_complete(self) -> None:
        """Called by the parser."""
        status = self._parser.get_status_code()
        if self._surplus:
            return
        if status < 200 and status != SWITCHING:
            self._interim += 1
        elif self._interim <= MOST_INTERIM:
            self._headed = True
            if not self._status:
                self._status = status
                self._headed_at = time.perf_counter()

    def on_body(self, piece: bytes) -> None:
        """Called by the parser."""
        if len(self._body) < KEPT_BODY and not self._surplus:
            self._body += piece[: KEPT_BODY - len(self._body)]

    def on_message_complete(self) -> None:
        """Called by the parser, also for interim answers (RFC 9110, section 15.2)."""
        if self._headed and not self._surplus:
            self._complete, self._keeps = True, self._parser.should_keep_alive()

    def _finish(self) -> None:
        waiter, self._waiter = self._waiter, None
        asked_wait = retry_after(head) if self._status >= 300 and (head := self._final_head()) else None
        answer = Answer(self._status, asked_wait, self._body, self._headed_at, time.perf_counter())
        transport, keeps = self._transport, self._keeps and not self._surplus
        if keeps and self.idle_s is None:
            # Servers say the same each time.
            self.idle_s = idle_s(self._final_head())
        self._begin_anew()
        if transport is not None:
            # An answer that came before the request was read leaves some of it unsent.
            if keeps and not transport.is_closing() and not transport.get_write_buffer_size():
                self._idle(self)
            else:
                transport.abort()
        if waiter is not None and not waiter.done():
            waiter.set_result(answer)

    def _fail(self, error: Exception) -> None:
        waiter, self._waiter = self._waiter, None
        self.unanswered = not self._head
        self._begin_anew()
        if waiter is not None and not waiter.done():
            waiter.set_exception(error)

    def _break_off(self, why: str) -> None:
        self._fail(BrokenAnswer(why))
        self.abort()

    def _final_head(self) -> Head | None:
        reader = self._head_reader or HeadReader()
        try:
            reader.read(self._head)
        except ValueError:
            return None
        return reader.head(self._head)

    def _begin_anew(self) -> None:
        if self._body_timer is not None:
            self._body_timer.cancel()
            self._body_timer = None
        self._head = self._body = b""
        self._head_reader = None
        self._status = self._interim = 0
        self._headed = self._complete = self._keeps = self._surplus = self._unreadable = False
