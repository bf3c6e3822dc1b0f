"""Whatever answers at the broker's address: the link goes on trying, and connects once the broker is there."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
from pamqp import commands, frame
from yarl import URL

from broker.rabbitmq.broker import RabbitBroker
from broker.topology import Topology
from consumers.loop import Loop

#: Connection.Close of AMQP 0-9-1, before anything was opened.
CLOSE = b"\x01\x00\x00\x00\x00\x00\x0b\x00\x0a\x00\x32\x01\x40\x00\x00\x00\x00\x00\xce"
RUDE = {
    "nothing": b"",
    "another version": b"AMQP\x00\x00\x09\x01",
    "another protocol": b"HTTP/1.1 400 Bad Request\r\n\r\n",
    "zeros": bytes(64),
    "a close": CLOSE,
    "half a frame": CLOSE[:9],
    "a frame of another AMQP channel": b"\x01\x00\x05" + CLOSE[3:],
    "a method that nobody knows": b"\x01\x00\x00\x00\x00\x00\x04\x00\xff\x00\xff\xce",
    "a start": frame.marshal(commands.Connection.Start(server_properties={}), 0),
    "a start that is broken": b"\x01\x00\x00\x00\x00\x00\x08\x00\x0a\x00\x0a\xff\xff\xff\xff\xce",
}
#: Connections that are answered rudely: both links try more than once.
RUDE_TRIES = 4


@asynccontextmanager
async def rude_at_first(rude: bytes, broker: URL) -> AsyncIterator[tuple[int, Callable[[], int]]]:
    """Answer rudely some times, and then lead to the broker; provides the port, and how many were answered rudely."""
    answered = 0
    pipes: set[asyncio.Task[None]] = set()

    async def pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65_536):
            writer.write(data)
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal answered
        if answered < RUDE_TRIES:
            answered += 1
            if rude:
                await reader.read(8)
            writer.write(rude)
            writer.close()
            return
        their_reader, their_writer = await asyncio.open_connection(broker.host, broker.port)
        for each in (pipe(reader, their_writer), pipe(their_reader, writer)):
            pipes.add(asyncio.create_task(each))

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1], lambda: answered
        for each in pipes:
            each.cancel()
        await asyncio.gather(*pipes, return_exceptions=True)


@pytest.mark.parametrize("rude", RUDE.values(), ids=RUDE.keys())
def test_a_peer_that_ends_the_connection_in_any_way_does_not_end_the_link(
    amqp_url: str, topology: Topology, rude: bytes
) -> None:
    async def connect() -> None:
        async with rude_at_first(rude, URL(amqp_url)) as (port, answered):
            broker = RabbitBroker(str(URL(amqp_url).with_host("localhost").with_port(port)), topology)
            async with asyncio.timeout(20):
                await broker.start()
            assert answered() == RUDE_TRIES
            await broker.close()

    # By the loop of the processes: what the library makes of an end depends on when it comes.
    with asyncio.Runner(loop_factory=Loop) as runner:
        runner.run(connect())
