"""A program that publishes to RabbitMQ with properties of any bytes, which no client library would write."""

import asyncio
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pamqp.frame
from pamqp import body, commands
from yarl import URL

#: Bodies are sent in frames of this size at most, in bytes.
LARGEST = 100_000
#: The flags of a content header that has a table of headers, and of one that has a message id besides.
HEADERS, WITH_ID = 0x2000, 0x2080


def field(name: bytes, value: bytes) -> bytes:
    """Write a field of a table: its name, and its value with its type."""
    return bytes((len(name),)) + name + value


def text(value: bytes) -> bytes:
    """Write a text of a table."""
    return b"S" + struct.pack(">I", len(value)) + value


def nested(depth: int) -> bytes:
    """Write tables that are nested so deep."""
    value = b"V"
    for _ in range(depth):
        inner = field(b"n", value)
        value = b"F" + struct.pack(">I", len(inner)) + inner
    return value


def table(*fields: bytes) -> bytes:
    """Write properties that have nothing but headers."""
    inner = b"".join(fields)
    return struct.pack(">HI", HEADERS, len(inner)) + inner


#: What the client library cannot decode, though RabbitMQ passes it on.
UNREADABLE: list[bytes] = [
    table(field(b"t", b"T" + struct.pack(">Q", 1_790_000_000_000_000))),
    table(field(b"t", b"T" + b"\xff" * 8)),
    table(field(b"\xff\xfe", text(b"x"))),
    table(field(b"deep", nested(2_000))),
    # A message id and an app id that are not UTF-8, and a name of 255 bytes.
    struct.pack(">HIB", WITH_ID, 0, 255) + b"\xff" * 255,
    struct.pack(">HB", 0x0008, 255) + b"\xfe" * 255,
    table(field(b"n" * 255, b"V")),
    # RabbitMQ reads the first, and would close the AMQP channel of who publishes the second.
    table(field(b"CC", b"A\x00\x00\x00\x00"), field(b"CC", text(b"x")), field(b"BCC", b"A\x00\x00\x00\x00")),
    table(*(field(b"%d" % number, b"V") for number in range(15_000))),
]


class RawPublisher:
    """One connection with one AMQP channel, in confirm mode."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._received = b""

    async def call(self, method: Any, channel: int = 1) -> Any:
        """Send a method, and return the next frame."""
        self._writer.write(pamqp.frame.marshal(method, channel))
        return await self.frame()

    async def frame(self) -> Any:
        """Return the next frame."""
        while True:
            if len(self._received) >= 7:
                size = 8 + struct.unpack_from(">I", self._received, 3)[0]
                if len(self._received) >= size:
                    one, self._received = self._received[:size], self._received[size:]
                    return pamqp.frame.unmarshal(one)[2]
            data = await self._reader.read(65536)
            if not data:
                raise EOFError("RabbitMQ closed the connection")
            self._received += data

    async def publish(self, exchange: str, content: bytes, properties: bytes, key: str = "") -> None:
        """Publish a body with properties as they stand in a content header, from its flags on; and be sure of it."""
        payload = struct.pack(">HHQ", 60, 0, len(content)) + properties
        self._writer.write(pamqp.frame.marshal(commands.Basic.Publish(exchange=exchange, routing_key=key), 1))
        self._writer.write(struct.pack(">BHI", 2, 1, len(payload)) + payload + b"\xce")
        for at in range(0, len(content), LARGEST):
            part = body.ContentBody(content[at : at + LARGEST])
            self._writer.write(pamqp.frame.marshal(part, 1))
        answer = await self.frame()
        assert isinstance(answer, commands.Basic.Ack), answer


@asynccontextmanager
async def raw_publisher(url: str) -> AsyncIterator[RawPublisher]:
    """Connect to a node."""
    address = URL(url)
    reader, writer = await asyncio.open_connection(address.host, address.port or 5672)
    try:
        one = RawPublisher(reader, writer)
        writer.write(b"AMQP\x00\x00\x09\x01")
        async with asyncio.timeout(20):
            await one.frame()
            login = f"\0{address.user or 'guest'}\0{address.password or 'guest'}"
            await one.call(commands.Connection.StartOk({}, "PLAIN", login), 0)
            writer.write(pamqp.frame.marshal(commands.Connection.TuneOk(16, 131_072, 0), 0))
            vhost = address.path.lstrip("/") or "/"
            await one.call(commands.Connection.Open(vhost), 0)
            await one.call(commands.Channel.Open())
            await one.call(commands.Confirm.Select())
        yield one
    finally:
        writer.close()
        await asyncio.gather(writer.wait_closed(), return_exceptions=True)
