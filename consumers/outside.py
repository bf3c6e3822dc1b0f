"""What outside programs publish: its body unpacked, the channel that it names, and what is written beside it."""

import zlib
from collections.abc import Mapping

from pydantic_core import from_json

from broker.models.inbound import CHANNEL_ID
from broker.models.json_bytes import without_mark
from broker.port import Envelope
from broker.return_address import PROPERTY

#: The same as at the HTTP door, in bytes; of a packed body, packed and unpacked.
LARGEST_BODY = 256 * 1024
#: Members of a gzip body: nearly all have one, and each is a step.
MOST_MEMBERS = 16
_GZIP = frozenset({"gzip", "x-gzip"})
#: For zlib: the largest window, and a gzip header around it.
_GZIP_WINDOW = 16 + zlib.MAX_WBITS


def outside_properties(envelope: Envelope) -> dict[str, str]:
    """Return a message's properties as headers: content type and encoding, app-id, message-id."""
    given = {**(envelope.properties or {}), "message-id": envelope.id}
    return {f"{PROPERTY}{name}": value for name, value in given.items() if value}


def content_encoding(envelope: Envelope) -> str:
    """Return how a body is packed, in small letters; nothing where it does not say."""
    given = (envelope.properties or {}).get("content-encoding")
    # What was redriven carries it as a header.
    return str(given or envelope.headers.get(f"{PROPERTY}content-encoding", "")).strip().lower()


def read_body(envelope: Envelope) -> bytes:
    """Return the body unpacked and without a byte order mark.

    Raises ValueError, saying why, where it is too large or is not packed as it says.
    """
    body, why_not = _unpacked(envelope)
    if why_not is not None:
        raise ValueError(why_not)
    return without_mark(body)


def named_channel(envelope: Envelope) -> str | None:
    """Return the channel id in a body, also where it is broken or too large further on; None where there is none."""
    body = without_mark(_unpacked(envelope)[0])
    try:
        found = from_json(body, allow_partial=True)
    except ValueError:
        return None
    named = found.get("channelId") if isinstance(found, Mapping) else None
    return named if isinstance(named, str) and CHANNEL_ID.fullmatch(named) else None


def _unpacked(envelope: Envelope) -> tuple[bytes, str | None]:
    """Return as much of a body as is taken, and why that is not all of it, where it is not."""
    body = envelope.body
    if envelope.size > LARGEST_BODY:
        return body[
            :LARGEST_BODY
        ], f"its body has {envelope.size:,} bytes; at most {LARGEST_BODY:,} are taken"
    if content_encoding(envelope) not in _GZIP:
        return body, None
    unpacked = b""
    for _ in range(MOST_MEMBERS):
        reader = zlib.decompressobj(_GZIP_WINDOW)
        try:
            unpacked += reader.decompress(body, LARGEST_BODY + 1 - len(unpacked))
        except zlib.error as error:
            return unpacked, f"it says that it is gzip, and is not: {error}"
        if len(unpacked) > LARGEST_BODY:
            return unpacked, f"unpacked, its body has more than the {LARGEST_BODY:,} bytes that are taken"
        if not reader.eof:
            return unpacked, "it says that it is gzip, and ends early"
        # Another member may follow (RFC 1952, section 2.2).
        body = reader.unused_data
        if not body:
            return unpacked, None
    return unpacked, f"as gzip it has more than {MOST_MEMBERS} members"
