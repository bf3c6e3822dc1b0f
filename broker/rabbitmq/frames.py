"""Frames of AMQP 0-9-1 that the hot path reads and writes, as bytes (sections 4.2.3 to 4.2.6).

The client library makes an object of each frame and of each of its parts. Here are the few that every message
needs: a publication is written in one piece, and of a content header only what we ask for is read.
"""

from collections.abc import Iterable, Mapping
from functools import lru_cache
from struct import Struct
from types import MappingProxyType

from pamqp import encode

from broker.errors import Unpublishable
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
#: The properties up to the last that is asked for, in order, by their flags (section 4.2.6.1).
_PROPERTIES = (
    (0x8000, "text", "content-type"), (0x4000, "text", "content-encoding"), (0x2000, "table", None),
    (0x1000, "octet", None), (0x0800, "octet", None), (0x0400, "text", None), (0x0200, "text", None),
    (0x0100, "text", None), (0x0080, "text", "message-id"), (0x0040, "moment", None), (0x0020, "text", "type"),
    (0x0010, "text", None), (0x0008, "text", "app-id"),
)  # fmt: skip
_CONTENT_TYPE, _HEADERS, _DELIVERY_MODE, _MESSAGE_ID, _TYPE = 0x8000, 0x2000, 0x1000, 0x0080, 0x0020
_FLAGS = _CONTENT_TYPE | _HEADERS | _DELIVERY_MODE | _MESSAGE_ID
_FLAGS_AND_TYPE = _FLAGS | _TYPE
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
#: Headers by which RabbitMQ routes. It closes the AMQP channel of who publishes one that is no list, and we have none
#: (https://www.rabbitmq.com/docs/sender-selected).
ROUTING = frozenset({"CC", "BCC"})
_ONLY_JSON: Mapping[str, str] = MappingProxyType({"content-type": "application/json"})


def acknowledgements(channel: int, tags: Iterable[tuple[int, bool]]) -> bytes:
    """Write a frame (basic.ack) for each tag; True beside it stands for all before it too."""
    return b"".join(
        _ACKNOWLEDGEMENT.pack(METHOD, channel, _ACK_SIZE, ACK, tag, multiple, FRAME_END)
        for tag, multiple in tags
    )


def read_properties(data: bytes, start: int, end: int) -> tuple[int, bytes, str, Mapping[str, str], str]:
    """Read a content header from its body's size up to its end.

    Returns that size, the headers' table with its length, the message id, which of content-type, content-encoding
    and app-id there are, and the type. Those are a sender's: where they do not end within the frame, there are
    none. Raises struct.error where there is no size, which is the broker's.
    """
    size, flags = _SIZE_AND_FLAGS.unpack_from(data, start)
    at = start + _SIZE_AND_FLAGS.size
    kind = ""
    if flags | _TYPE == _FLAGS_AND_TYPE and data.startswith(_JSON, at):
        # As we write them ourselves.
        named: Mapping[str, str] = _ONLY_JSON
        at += len(_JSON)
        headers, at = _table(data, at, end)
        at += 1
        message_id, at = _text(data, at, end)
        if flags & _TYPE:
            kind, at = _text(data, at, end)
    else:
        headers, message_id, kind, named, at = _read_any(data, flags, at, end)
    return (size, headers, message_id, named, kind) if at <= end else (size, b"", "", {}, "")


def _read_any(data: bytes, flags: int, at: int, end: int) -> tuple[bytes, str, str, dict[str, str], int]:
    headers, named = b"", {}
    for flag, kind, name in _PROPERTIES:
        if not flags & flag:
            continue
        if kind == "text":
            text, at = _text(data, at, end)
            if name is not None:
                named[name] = text
        elif kind == "table":
            headers, at = _table(data, at, end)
        else:
            at += 8 if kind == "moment" else 1
    return headers, named.pop("message-id", ""), named.pop("type", ""), named, at


def _text(data: bytes, at: int, end: int) -> tuple[str, int]:
    if at >= end:
        return "", end + 1
    after = at + 1 + data[at]
    return data[at + 1 : after].decode("utf-8", "replace"), after


def _table(data: bytes, at: int, end: int) -> tuple[bytes, int]:
    if at + 4 > end:
        return b"", end + 1
    after = at + 4 + _LENGTH.unpack_from(data, at)[0]
    return (data[at:after] if at + 4 < after <= end else b""), after


def publication(
    channel: int,
    exchange: str,
    routing_key: str,
    message_id: str,
    headers: Mapping[str, HeaderValue],
    body: bytes,
    largest: int,
    kind: str = "",
) -> bytes:
    """Write a persistent, mandatory JSON message as its frames, the body in parts of at most `largest` bytes.

    `kind` is written as the property `type`, where it is not empty.

    Raises Unpublishable where a name is longer than 255 bytes, a header cannot be encoded, or they are more than
    one frame of `largest` bytes carries: a body can be parted, headers cannot.
    """
    table = _NO_HEADERS
    if headers:
        if ROUTING.intersection(headers):
            raise Unpublishable("A header CC or BCC is RabbitMQ's to read.")
        try:
            table = encode.field_table(dict(headers))
        except (TypeError, ValueError) as error:
            raise Unpublishable(f"A header cannot be encoded: {error}.") from error
    named = _short(message_id) + _short(kind) if kind else _short(message_id)
    size = len(body)
    length = _CONTENT_SIZE + len(_JSON) + len(table) + len(_PERSISTENT) + len(named)
    if length > largest:
        room = largest - length + len(table) - len(_NO_HEADERS)
        raise Unpublishable(
            f"Its headers take {len(table):,} bytes, and one frame has room for {max(room, 0):,}.",
            headers_room=max(room, 0),
        )
    head = (
        _method(channel, exchange, routing_key),
        _CONTENT.pack(HEADER, channel, length, _BASIC, _NO_WEIGHT, size, _FLAGS_AND_TYPE if kind else _FLAGS),
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
    try:
        encoded = text.encode()
    except UnicodeEncodeError as error:
        raise Unpublishable(f"A name cannot be written as UTF-8: {text[:40]!r}.") from error
    if len(encoded) > 255:
        raise Unpublishable(f"A name of {len(encoded)} bytes is longer than AMQP's 255: {text[:40]!r}…")
    return bytes((len(encoded),)) + encoded
