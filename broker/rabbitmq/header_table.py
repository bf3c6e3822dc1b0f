"""Header tables that strangers wrote: read what can be read, in bounded time, and never raise.

RabbitMQ passes on moments beyond the calendar, names in any encoding, and tables nested thousands deep. What is
wanted of a table are its texts, whole numbers and truths; all else is stepped over by its length. A table of AMQP
0-9-1 is a list of fields: a short name, the octet of a type, a value (section 4.2.5.5; RabbitMQ's types are in
https://www.rabbitmq.com/amqp-0-9-1-errata.html, section 3).
"""

from collections.abc import Iterator
from contextlib import suppress
from struct import Struct

from broker.port import DEATH_QUEUE, DEATH_REASON, HeaderValue
from broker.rabbitmq.frames import ROUTING

#: Fields of a table that are looked at: a frame has room for tens of thousands.
MOST_FIELDS = 1_000
#: The longest name that the specification allows, in bytes.
LONGEST_NAME = 128

_LENGTH = Struct(">I")
_TEXT, _BYTES, _TRUTH, _ARRAY, _TABLE = b"SxtAF"
#: Types by the size of their values, in octets; the others begin with their length.
_SIZES = {
    kind: size
    for kinds, size in ((b"V\x00", 0), (b"tbB", 1), (b"su", 2), (b"Iif", 4), (b"D", 5), (b"lLdT", 8))
    for kind in kinds
}
_WITH_LENGTH = frozenset(b"SxAF")
#: RabbitMQ reads `L` with a sign, whatever the specification says.
_SIGNED, _UNSIGNED = frozenset(b"bsIlL"), frozenset(b"Bui")
_COUNT, _DEATHS = b"x-delivery-count", b"x-death"
#: Names that are the broker's, or by which a sender tells it where else to put a message.
_NEVER = frozenset({DEATH_QUEUE.encode(), DEATH_REASON.encode(), *(name.encode() for name in ROUTING)})
_QUEUE, _REASON = b"queue", b"reason"
#: The name and the type of a field, and where its value begins and ends.
_Field = tuple[bytes, int, int, int]


def read_headers(raw: bytes) -> dict[str, HeaderValue]:
    """Read a table with its length in front of it; what cannot be read is left out.

    Of two fields of one name the first counts, which is where the broker writes. DEATH_QUEUE and DEATH_REASON are
    read from the first entry of `x-death`, the broker's own, and not from what a sender may have called so.
    """
    first: dict[bytes, HeaderValue | None] = {}
    deaths: dict[str, HeaderValue] | None = None
    end = _LENGTH.size
    for name, kind, begin, end in _fields_of(raw):
        if name == _DEATHS and deaths is None:
            deaths = _last_death(raw, begin, end) if kind == _ARRAY else {}
        first.setdefault(name, _value(raw, kind, begin, end))
    if deaths is None and raw.find(_DEATHS, end) >= 0:
        # It lies behind what was looked at: the broker gave it up, and which queue that was is not known.
        deaths = {DEATH_QUEUE: ""}
    found: dict[str, HeaderValue] = {}
    for name, value in first.items():
        if value is not None and len(name) <= LONGEST_NAME and name not in _NEVER:
            with suppress(UnicodeDecodeError):
                found[name.decode()] = value
    return found | deaths if deaths else found


def delivery_count(raw: bytes) -> int:
    """Read how often the broker says that a message came back; 0 where it does not say."""
    if _COUNT in raw:
        for name, kind, begin, end in _fields_of(raw):
            if name == _COUNT:
                value = _value(raw, kind, begin, end)
                return value if isinstance(value, int) else 0
    return 0


def _fields_of(raw: bytes) -> Iterator[_Field]:
    if len(raw) < _LENGTH.size:
        return iter(())
    return _fields(raw, _LENGTH.size, min(len(raw), _LENGTH.size + _LENGTH.unpack_from(raw)[0]))


def _fields(raw: bytes, at: int, end: int) -> Iterator[_Field]:
    """Step over the fields between two places; ends at the first whose end cannot be told."""
    for _ in range(MOST_FIELDS):
        if at >= end:
            return
        after_name = at + 1 + raw[at]
        if after_name >= end:
            return
        value = _place(raw, after_name, end)
        if value is None:
            return
        yield raw[at + 1 : after_name], *value
        at = value[2]


def _place(raw: bytes, at: int, end: int) -> tuple[int, int, int] | None:
    """Tell the type of the value whose type's octet is there, and where it begins and ends."""
    kind, begin = raw[at], at + 1
    size = _SIZES.get(kind)
    if size is None:
        if kind not in _WITH_LENGTH or begin + _LENGTH.size > end:
            return None
        size = _LENGTH.unpack_from(raw, begin)[0]
        begin += _LENGTH.size
    return (kind, begin, begin + size) if begin + size <= end else None


def _value(raw: bytes, kind: int, begin: int, end: int) -> HeaderValue | None:
    if kind in (_TEXT, _BYTES):
        return raw[begin:end].decode("utf-8", "replace")
    if kind == _TRUTH:
        return raw[begin] != 0
    if kind in _SIGNED or kind in _UNSIGNED:
        return int.from_bytes(raw[begin:end], signed=kind in _SIGNED)
    return None


def _last_death(raw: bytes, begin: int, end: int) -> dict[str, HeaderValue]:
    """Read the newest entry of `x-death`, which is a table, without going any deeper."""
    first = _place(raw, begin, end) if begin < end else None
    found: dict[str, HeaderValue] = {}
    if first is not None and first[0] == _TABLE:
        for name, kind, at, after in _fields(raw, first[1], first[2]):
            if kind == _TEXT and name in (_QUEUE, _REASON):
                key = DEATH_QUEUE if name == _QUEUE else DEATH_REASON
                found.setdefault(key, raw[at:after].decode("utf-8", "replace"))
    return found
