"""Frames of AMQP 0-9-1 that the hot path reads and writes, as bytes (sections 4.2.3 to 4.2.6).

The client library makes an object of each frame and of each of its parts. Here are the few that every message
needs: a publication is written in one piece, and of a content header only what we ask for is read.
"""

from collections.abc import Iterable, Mapping
from functools import lru_cache
from struct import Struct

from pamqp import encode

from broker.port import HeaderValue

#: Type, AMQP channel and size of a frame; after the payload comes its end.
HEAD = Struct(">BHI")
HEAD_SIZE, FRAME_END = HEAD.size, 0xCE
METHOD, HEADER, BODY = 1, 2, 3
HEARTBEAT = b"\x08\x00\x00\x00\x00\x00\x00\xce"
#: Of class 20, channel, one method, and of class 60, basic, the others.
CLOSE = b"\x00\x14\x00\x28"
PUBLISH, RETURN, DELIVER = b"\x00\x3c\x00\x28", b"\x00\x3c\x00\x32", b"\x00\x3c\x00\x3c"
ACK, NACK = b"\x00\x3c\x00\x50", b"\x00\x3c\x00\x78"
#: A tag and the octet behind it: of a delivery, whether it was redelivered; of a confirm, whether it is for several.
TAG = Struct(">QB")

_ACKNOWLEDGEMENT = Struct(">BHI4sQBB")
_ACK_SIZE = len(ACK) + TAG.size
_SIZE_AND_FLAGS = Struct(">QH")
_LENGTH = Struct(">I")
#: The properties before the message id, by their flag (section 4.2.6.1), in order: short texts, the table, an octet.
_BEFORE_ID = ((0x8000, "text"), (0x4000, "text"), (0x2000, "table"), (0x1000, "octet"), (0x0800, "octet"),
              (0x0400, "text"), (0x0200, "text"), (0x0100, "text"))  # fmt: skip
_CONTENT_TYPE, _HEADERS, _DELIVERY_MODE, _MESSAGE_ID = 0x8000, 0x2000, 0x1000, 0x0080
_FLAGS = _CONTENT_TYPE | _HEADERS | _DELIVERY_MODE | _MESSAGE_ID
_NO_TICKET, _MANDATORY = b"\x00\x00", b"\x01"
#: A content header to its flags: the frame's head; class, no weight, the body's size, the flags.
_CONTENT = Struct(">BHIHHQH")
_BASIC, _NO_WEIGHT = 60, 0
#: Of what a content frame holds, that which is before the texts and the table.
_CONTENT_SIZE = _CONTENT.size - HEAD_SIZE
#: The end of one frame and the head of the next.
_NEXT = Struct(">BBHI")
_JSON = b"\x10application/json"
_PERSISTENT = b"\x02"
_END = b"\xce"
_NO_HEADERS = b"\x00\x00\x00\x00"


def acknowledgements(channel: int, tags: Iterable[tuple[int, bool]]) -> bytes:
    """Write a frame (basic.ack) for each tag; True beside it stands for all before it too."""
    return b"".join(
        _ACKNOWLEDGEMENT.pack(METHOD, channel, _ACK_SIZE, ACK, tag, multiple, FRAME_END)
        for tag, multiple in tags
    )


def read_properties(data: bytes, start: int) -> tuple[int, bytes, str]:
    """Read a content header from its body's size on: that size, the headers' table with its length, the message id.

    Raises struct.error or IndexError where it ends early.
    """
    size, flags = _SIZE_AND_FLAGS.unpack_from(data, start)
    at = start + 10
    headers = b""
    for flag, kind in _BEFORE_ID:
        if flags & flag:
            if kind == "text":
                at += 1 + data[at]
            elif kind == "octet":
                at += 1
            else:
                length = 4 + _LENGTH.unpack_from(data, at)[0]
                headers = data[at : at + length] if length > 4 else b""
                at += length
    message_id = data[at + 1 : at + 1 + data[at]].decode("utf-8", "replace") if flags & _MESSAGE_ID else ""
    return size, headers, message_id


def publication(
    channel: int,
    exchange: str,
    routing_key: str,
    message_id: str,
    headers: Mapping[str, HeaderValue],
    body: bytes,
    largest: int,
) -> bytes:
    """Write a persistent, mandatory JSON message as its frames, the body in parts of at most `largest` bytes.

    Raises ValueError where a name is longer than 255 bytes or a header cannot be encoded.
    """
    table = _NO_HEADERS
    if headers:
        try:
            table = encode.field_table(dict(headers))
        except TypeError as error:
            raise ValueError(f"a header cannot be encoded: {error}") from error
    named = _short(message_id)
    size = len(body)
    length = _CONTENT_SIZE + len(_JSON) + len(table) + len(_PERSISTENT) + len(named)
    head = (
        _method(channel, exchange, routing_key),
        _CONTENT.pack(HEADER, channel, length, _BASIC, _NO_WEIGHT, size, _FLAGS),
        _JSON,
        table,
        _PERSISTENT,
        named,
    )
    if 0 < size <= largest:
        return b"".join((*head, _NEXT.pack(FRAME_END, BODY, channel, size), body, _END))
    parts = [*head, _END]
    for at in range(0, size, largest):
        part = body[at : at + largest]
        parts += (HEAD.pack(BODY, channel, len(part)), part, _END)
    return b"".join(parts)


# Most messages go where another has gone before: a channel has a key for each partition.
@lru_cache(maxsize=1024)
def _method(channel: int, exchange: str, routing_key: str) -> bytes:
    method = b"".join((PUBLISH, _NO_TICKET, _short(exchange), _short(routing_key), _MANDATORY))
    return b"".join((HEAD.pack(METHOD, channel, len(method)), method, _END))


def _short(text: str) -> bytes:
    encoded = text.encode()
    if len(encoded) > 255:
        raise ValueError(f"a name of {len(encoded)} bytes is longer than AMQP's 255: {text[:40]!r}…")
    return bytes((len(encoded),)) + encoded
