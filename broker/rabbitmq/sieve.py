"""The sieve: takes deliveries and confirms off a connection's stream, before the client library sees them.

The library makes four objects and a task of each delivery and passes its three frames through two queues; here
they are read where they lie. All other frames go on to the library untouched, in order. Frames are as in AMQP
0-9-1, section 4.2; a delivery is its method (basic.deliver), its content header and its body, the frames of one
AMQP channel in a row.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Protocol

from broker.port import Envelope, HeaderValue
from broker.rabbitmq.frames import (
    BODY,
    CLOSE,
    DELIVER,
    FRAME_END,
    HEAD,
    HEAD_SIZE,
    HEADER,
    HEARTBEAT,
    METHOD,
    TAG,
    read_properties,
)
from broker.rabbitmq.header_table import delivery_count, read_headers

#: A broker that sends deliveries sends no heartbeats, and the library has to see that it lives: so often, in seconds.
BEAT_S = 1.0
#: Of a longer body only the beginning is kept, in bytes. Nothing of ours is so long; anybody may publish what is, up
#: to what the broker takes, and it is a dead letter either way.
LONGEST_BODY = 2 * 2**20


class Headers(Mapping[str, HeaderValue]):
    """A message's headers, decoded when somebody looks: almost nobody does."""

    __slots__ = ("_plain", "_raw")

    def __init__(self, raw: bytes) -> None:
        self._raw = raw
        self._plain: Mapping[str, HeaderValue] | None = None

    def __getitem__(self, name: str) -> HeaderValue:
        return self._decoded()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._decoded())

    def __len__(self) -> int:
        return len(self._decoded())

    def __repr__(self) -> str:
        return repr(self._decoded())

    def _decoded(self) -> Mapping[str, HeaderValue]:
        if self._plain is None:
            self._plain = read_headers(self._raw)
        return self._plain


class Reader(Protocol):
    """Reads frames of one AMQP channel."""

    def takes(self, kind: int, data: bytes, start: int, end: int) -> bool:
        """Read a frame's payload, data[start:end]; False where it is for the library."""
        ...


class Deliveries:
    """Puts one AMQP channel's deliveries together from their frames."""

    __slots__ = (
        "_body",
        "_headers",
        "_id",
        "_key",
        "_left",
        "_properties",
        "_redelivered",
        "_skipped",
        "_tag",
        "_take",
        "_under_way",
        "ended",
    )

    def __init__(self, take: Callable[[Envelope], None]) -> None:
        self._take = take
        #: The kind of frame that comes next: METHOD while no delivery is under way.
        self._under_way = METHOD
        self._tag = self._left = self._redelivered = self._skipped = 0
        self._key = self._id = ""
        self._headers = b""
        self._properties: Mapping[str, str] = {}
        self._body: list[bytes] = []
        #: True once the broker has closed the AMQP channel: the library answers, and tells of it a moment later.
        self.ended = False

    def takes(self, kind: int, data: bytes, start: int, end: int) -> bool:
        """Read a frame's payload, data[start:end]; False where it is for the library."""
        if kind != self._under_way:
            return False
        if kind == METHOD:
            if (method := data[start : start + 4]) != DELIVER:
                self.ended |= method == CLOSE
                return False
            at = start + 5 + data[start + 4]
            self._tag, self._redelivered = TAG.unpack_from(data, at)
            at += 9
            at += 1 + data[at]
            self._key = data[at + 1 : at + 1 + data[at]].decode("utf-8", "replace")
            self._under_way = HEADER
            return True
        if kind == HEADER:
            read = read_properties(data, start + 4, end)
            self._left, self._headers, self._id, self._properties, whole_key = read
            if whole_key and whole_key.endswith(f".{self._key}"):
                # It came by a direct exchange, whose keys are the last words of ours.
                self._key = whole_key
            self._skipped = self._left - LONGEST_BODY
            self._under_way = BODY
        else:
            if self._left > self._skipped:
                self._body.append(data[start:end])
            self._left -= end - start
        if self._left <= 0:
            self._complete()
        return True

    def _complete(self) -> None:
        raw = self._headers
        headers: Mapping[str, HeaderValue] = Headers(raw) if raw else {}
        returned = self._redelivered & 1
        if returned and raw:
            # The broker writes the count only on what it delivers again; on all else it is a sender's own.
            returned = max(returned, delivery_count(raw))
        body = self._body[0] if len(self._body) == 1 else b"".join(self._body)
        self._body = []
        self._under_way = METHOD
        whole = self._skipped + LONGEST_BODY if self._skipped > 0 else 0
        self._take(Envelope(self._id, body, self._key, headers, self._tag, returned, self._properties, whole))


class Sieve:
    """Sifts what one connection receives."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._readers: dict[int, Reader] = {}
        #: The beginning of a frame whose end is not here yet.
        self._rest = b""
        self._beat_at = 0.0
        self._sifting: bool | None = None

    def pass_to(self, channel: int, reader: Reader) -> None:
        """Let a reader have an AMQP channel's frames from now on; ask before there are any for it."""
        self._readers[channel] = reader

    def leave(self, channel: int, reader: Reader) -> None:
        """Let an AMQP channel's frames go to the library again; ask after it is closed.

        Does nothing where its number is another reader's by now.
        """
        if self._readers.get(channel) is reader:
            del self._readers[channel]

    def feed(self, received: bytes) -> bytes:
        """Take deliveries out of what was received, and return the rest, in whole frames."""
        if self._sifting is False:
            return received
        data = self._rest + received if self._rest else received
        if self._sifting is None and len(data) >= 4:
            # A server that speaks another version of the protocol answers with its name and hangs up.
            self._sifting = data[:4] != b"AMQP"
            if not self._sifting:
                return data
        passed: list[bytes] = []
        at = kept = 0
        end_of_data = len(data)
        taken = False
        while end_of_data - at > HEAD_SIZE:
            kind, channel, size = HEAD.unpack_from(data, at)
            end = at + HEAD_SIZE + size + 1
            if end > end_of_data:
                break
            if data[end - 1] != FRAME_END:
                # What is out of step stays so: the library says what is wrong, and gives up the connection.
                self._sifting = False
                return b"".join((*passed, data[kept:]))
            reader = self._readers.get(channel)
            if reader is not None and reader.takes(kind, data, at + HEAD_SIZE, end - 1):
                if kept < at:
                    passed.append(data[kept:at])
                kept = end
                taken = True
            at = end
        if kept < at:
            passed.append(data[kept:at])
        self._rest = data[at:]
        if taken and self._clock() - self._beat_at > BEAT_S:
            self._beat_at = self._clock()
            passed.append(HEARTBEAT)
        return b"".join(passed)
