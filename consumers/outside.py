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
    body = envelope.body
    if len(body) > LARGEST_BODY:
        raise ValueError(f"its body has {len(body):,} bytes; at most {LARGEST_BODY:,} are taken")
    if content_encoding(envelope) in _GZIP:
        body = _unpacked(body)
    return without_mark(body)


def named_channel(envelope: Envelope) -> str | None:
    """Return the channel id in a body, also where it is broken or too large further on; None where there is none."""
    try:
        body = read_body(envelope)
    except ValueError:
        body = without_mark(envelope.body[:LARGEST_BODY])
    try:
        found = from_json(body, allow_partial=True)
    except ValueError:
        return None
    named = found.get("channelId") if isinstance(found, Mapping) else None
    return named if isinstance(named, str) and CHANNEL_ID.fullmatch(named) else None


def _unpacked(body: bytes) -> bytes:
    unpacked = b""
    while body:
        reader = zlib.decompressobj(_GZIP_WINDOW)
        try:
            unpacked += reader.decompress(body, LARGEST_BODY + 1 - len(unpacked))
        except zlib.error as error:
            raise ValueError(f"it says that it is gzip, and is not: {error}") from None
        if len(unpacked) > LARGEST_BODY:
            raise ValueError(f"unpacked, its body has more than the {LARGEST_BODY:,} bytes that are taken")
        if not reader.eof:
            raise ValueError("it says that it is gzip, and ends early")
        # Another member may follow (RFC 1952, section 2.2).
        body = reader.unused_data
    return unpacked
