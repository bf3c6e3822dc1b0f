"""A connection: what a client may cost this process before anything is known of it.

The HTTP library bounds each header line, but neither all of them together nor the time that they take, and tells
what is no HTTP in its own way. Here a connection that keeps the server waiting has a deadline, each request a
number of bytes, and each error is a problem.
"""

import asyncio
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Protocol, cast

import structlog
from aiohttp import web
from aiohttp.http_exceptions import LineTooLong
from aiohttp.typedefs import Handler

from broker.api.bodies import LARGEST_BODY
from broker.api.problems import PROBLEM_JSON, Problem, told
from broker.api.receipt import ALWAYS, SERVER

log = structlog.get_logger()

#: How long a connection that was closed may take to send what is left and end, in seconds.
LAST_S = 2.0
#: For the library's own side of a connection: it unpacks no bodies, and reads on after an answer for so many seconds,
#: since a client that sends meanwhile would lose the answer. Idle connections are closed here, and not by it.
HANDLER_ARGS: dict[str, Any] = {"auto_decompress": False, "lingering_time": LAST_S}

_END_OF_HEAD = b"\r\n\r\n"
_TOO_SLOW = Problem(408, "The request's headers did not come in time.", headers={"Connection": "close"})
_TOO_LARGE = Problem(431, "The request's headers are too large.", headers={"Connection": "close"})
_UNREADABLE = Problem(400, "This is no HTTP request that can be read.", headers={"Connection": "close"})
_LINE_TOO_LONG = Problem(
    431, "The request line or a header of it is too long.", headers={"Connection": "close"}
)
_FAILED = Problem(500, "Something went wrong on our side.", headers={"Connection": "close"})


@dataclass(frozen=True, slots=True)
class Limits:
    """What one server grants its clients."""

    #: Connections at a time.
    most: int = 4096
    #: How often connections are looked at, in seconds.
    look_s: float = 1.0
    #: How long the headers of a request may take, from the connection or from their first byte on, in seconds.
    head_s: float = 10.0
    #: How long a connection may be without a request after the first one: longer than proxies keep theirs.
    idle_s: float = 75.0
    #: The request line and all headers together, in bytes.
    head_bytes: int = 32 * 1024
    #: The rest of a request, in bytes: the largest body in small chunks, or what is thrown away of a larger one.
    rest_bytes: int = 4 * LARGEST_BODY


class Counted(Protocol):
    """Where connections are counted."""

    limits: Limits

    def admit(self, connection: "Connection") -> bool:
        """Count a connection in, where there is room."""
        ...

    def begun(self, connection: "Connection") -> None:
        """Note that a request of a connection is in hand."""
        ...

    def ended(self, connection: "Connection") -> None:
        """Note that a connection's request is answered."""
        ...

    def forget(self, connection: "Connection") -> None:
        """Count a connection out."""
        ...


class Connection(web.RequestHandler):
    """One connection: the library's, with its time and its bytes bounded, and its errors told as problems."""

    __slots__ = ("_connections", "_in_head", "_left", "_tail", "_wire", "until")

    def __init__(self, connections: Counted, server: web.Server, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(
            server,
            loop=loop,
            access_log=None,  # type: ignore[arg-type]  # It takes None for none.
            **HANDLER_ARGS,
        )
        self._connections = connections
        self._wire: asyncio.Transport | None = None
        self._in_head = True
        #: Bytes that may still come of the headers, or of the rest of the request.
        self._left = connections.limits.head_bytes
        #: The last bytes of the headers so far: their end may come in two pieces.
        self._tail = b""
        #: When its time is over, by the loop's clock, where it keeps the server waiting.
        self.until = loop.time() + connections.limits.head_s

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin, where there is room."""
        # The event loop of the product has a class of its own, which only looks like this one.
        self._wire = cast(asyncio.Transport, transport)
        if self._connections.admit(self):
            super().connection_made(transport)
        else:
            self._wire.abort()

    def connection_lost(self, exc: BaseException | None) -> None:
        """Count it out."""
        self._connections.forget(self)
        super().connection_lost(exc)
        self._wire = None

    def data_received(self, data: bytes) -> None:
        """Take what came, as far as it is within the limits; the library says nothing (`b""`) to go on reading."""
        if data and not (self._take_head(data) if self._in_head else self._take_rest(data)):
            return
        super().data_received(data)

    def begun(self) -> None:
        """Note that a request is in hand."""
        self._connections.begun(self)
        self._in_head = False
        self._left = self._connections.limits.rest_bytes

    def ended(self, whole: bool) -> None:
        """Note that the request is answered, or about to be; `whole` where all of its body has come."""
        limits = self._connections.limits
        self.until = self._loop.time() + limits.idle_s
        self._in_head = whole
        self._left = limits.head_bytes if whole else limits.rest_bytes
        self._tail = b""
        self._connections.ended(self)

    def expire(self, now: float) -> None:
        """Close it, its time being over; where it does not end then, cut it off."""
        if self._wire is None:
            return
        if self._wire.is_closing() or self._wire.get_write_buffer_size():
            self.drop()
            return
        self.until = now + LAST_S
        if self._in_head and self._left < self._connections.limits.head_bytes:
            self._refuse(_TOO_SLOW)
        else:
            self.force_close()

    def drop(self) -> None:
        """Cut it off."""
        if self._wire is not None:
            self._wire.abort()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer what is no HTTP, or what failed outside of all handlers, without repeating any of it."""
        if request.writer.output_size > 0:
            raise ConnectionError("A part of an answer was sent; there can be no other.")
        if status < 500:
            problem = _LINE_TOO_LONG if isinstance(exc, LineTooLong) else _UNREADABLE
        else:
            problem = _FAILED
            log.error("api.failed", method=request.method, exc_info=exc)
        response = problem.response()
        response.headers.update({"Server": SERVER, **ALWAYS})
        return response

    def _take_head(self, data: bytes) -> bool:
        limits = self._connections.limits
        fresh = self._left == limits.head_bytes
        if fresh and data[0] in b"\r\n":
            # The parser skips empty lines before a request; here they must not pass for its end.
            data = data.lstrip(b"\r\n")
            if not data:
                return False
        end = data.find(_END_OF_HEAD)
        if end < 0 and self._tail:
            end = 0 if _END_OF_HEAD in self._tail + data[:3] else -1
        self._left -= len(data) if end < 0 else end
        if self._left < 0:
            self._refuse(_TOO_LARGE)
            return False
        if end >= 0:
            self._in_head = False
            self._left = max(limits.rest_bytes - len(data), 0)
            self.until = self._loop.time() + limits.head_s
        else:
            self._tail = (self._tail + data)[-3:] if len(data) < 3 else data[-3:]
            if fresh:
                self.until = min(self.until, self._loop.time() + limits.head_s)
        return True

    def _take_rest(self, data: bytes) -> bool:
        self._left -= len(data)
        if self._left < 0:
            self.force_close()
            return False
        return True

    def _refuse(self, problem: Problem) -> None:
        if self._wire is not None and not self._wire.get_write_buffer_size():
            self._wire.write(_written(problem))
        self.force_close()


def _written(problem: Problem) -> bytes:
    body = problem.body
    head = {
        "Content-Type": PROBLEM_JSON,
        "Content-Length": str(len(body)),
        "Server": SERVER,
        **problem.headers,
        **ALWAYS,
    }
    lines = "".join(f"{name}: {value}\r\n" for name, value in head.items())
    return f"HTTP/1.1 {problem.status} {HTTPStatus(problem.status).phrase}\r\n{lines}\r\n".encode() + body


@web.middleware
async def in_hand(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Tell the connection of a request while the request is in hand, and make problems of errors.

    One step for both: each costs every request.
    """
    connection = request.protocol if isinstance(request.protocol, Connection) else None
    if connection is not None:
        connection.begun()
    try:
        return await handler(request)
    except Exception as error:
        return told(request, error)
    finally:
        if connection is not None:
            connection.ended(request.content.is_eof())
