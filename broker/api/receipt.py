"""The receipt: the answer to a message that is safely on the queue, written in one piece.

It is the answer that nearly every request gets, with the same few headers each time.
"""

import time
from email.utils import formatdate

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter

from broker import __version__
from broker.api.limits import Allowance

EVENT_RECEIVED = "EVENT_RECEIVED"
#: What every answer of the API has in its headers.
SERVER = f"Postbote/{__version__}"
ALWAYS = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}

_BEFORE_ID = f'{{"message":"{EVENT_RECEIVED}","id":"'
_HEAD = "\r\n".join(
    (
        "HTTP/1.1 200 OK",
        "Content-Type: application/json",
        f"Server: {SERVER}",
        *(f"{name}: {value}" for name, value in ALWAYS.items()),
        "",
    )
)


class Receipt(web.StreamResponse):
    """Says that a message is on the queue, under its id; only for a request of HTTP/1.1 that keeps its connection."""

    def __init__(self, message_id: str, allowance: Allowance | None = None) -> None:
        super().__init__()
        body = f'{_BEFORE_ID}{message_id}"}}'
        limits = "" if allowance is None else _lines(allowance)
        self._whole = f"{_HEAD}{limits}Content-Length: {len(body)}\r\nDate: {_date()}\r\n\r\n{body}".encode()
        self._writer: AbstractStreamWriter | None = None

    @property
    def keep_alive(self) -> bool:
        """True: the next request may follow on the connection."""
        return True

    @property
    def prepared(self) -> bool:
        """True where it is on its way."""
        return self._writer is not None

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter:
        """Take the request's connection; the headers go together with the body."""
        self._writer = request.writer
        return self._writer

    async def write_eof(self, data: bytes = b"") -> None:
        """Write headers and body."""
        assert self._writer is not None
        await self._writer.write_eof(self._whole)


def fits_receipt(request: web.BaseRequest) -> bool:
    """Tell whether a request can be answered with a receipt."""
    return request.keep_alive and request.version == (1, 1)


def _lines(allowance: Allowance) -> str:
    return "".join(f"{name}: {value}\r\n" for name, value in allowance.headers.items())


_date_of = (0, "")


def _date() -> str:
    global _date_of
    second = int(time.time())
    if second != _date_of[0]:
        _date_of = second, formatdate(second, usegmt=True)
    return _date_of[1]
