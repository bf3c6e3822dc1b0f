"""Copies of responses for others: what their queues do costs no conversation, and what nobody reads goes nowhere."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from types import MappingProxyType

import aio_pika
import pytest
from aio_pika.abc import AbstractChannel, AbstractQueue
from servers.rabbitmq import kinds_here
from servers.rabbitmq_node import Node

from broker.port import Broker, Envelope
from broker.rabbitmq.copies import UNREAD_S
from broker.topology import OUTBOUND, RESPONSES, UNROUTED, outbound_queue, response_key

MakeBroker = Callable[..., Awaitable[Broker]]
on_one_node = pytest.mark.parametrize("node", kinds_here()[-1:], indirect=True)
KEY = response_key("ch_1", "text", 0)
COPY_KEY = "response.ch_1.text.c00"
QUORUM: dict[str, str | int] = {"x-queue-type": "quorum"}


def response(number: int, body: bytes = b"{}") -> Envelope:
    return Envelope(f"m-{number}", body, KEY, {"postbote-turn": "1/1"})


async def say(broker: Broker, numbers: range, body: bytes = b"{}") -> None:
    """Publish responses as a bot worker does: each confirmed, then copied."""
    for number in numbers:
        await broker.publish(OUTBOUND, response(number, body))
        broker.copy(response(number, body))


@asynccontextmanager
async def strangers(node: Node) -> AsyncIterator[AbstractChannel]:
    try:
        async with await aio_pika.connect(node.url) as connection, connection.channel() as channel:
            yield channel
    finally:
        async with await aio_pika.connect(node.url) as connection, connection.channel() as channel:
            for name in ("stranger", "other"):
                await channel.queue_delete(name)


async def bound(
    channel: AbstractChannel,
    name: str = "stranger",
    pattern: str = "response.#",
    more: Mapping[str, str | int] = MappingProxyType({}),
) -> AbstractQueue:
    queue = await channel.declare_queue(name, durable=True, arguments={**QUORUM, **more})
    await queue.bind(RESPONSES, pattern)
    return queue


async def copies(queue: AbstractQueue, last: str) -> list[str]:
    """Take copies up to one that is named, and list their ids."""
    taken: list[str] = []
    async with asyncio.timeout(20), queue.iterator(no_ack=True) as arriving:
        async for one in arriving:
            taken.append(one.message_id or "")
            if one.message_id == last:
                break
    return taken


async def waiting(channel: AbstractChannel, name: str) -> int:
    queue = await channel.declare_queue(name, passive=True)
    return queue.declaration_result.message_count or 0


async def test_a_full_queue_of_somebody_elses_refuses_nobody_but_itself(
    make_rabbit: MakeBroker, node: Node
) -> None:
    broker = await make_rabbit()
    full: dict[str, str | int] = {"x-max-length": 1, "x-overflow": "reject-publish"}
    async with strangers(node) as channel:
        await bound(channel, more=full)
        reader = await bound(channel, "other")
        async with asyncio.timeout(20):
            await say(broker, range(100))
        assert await copies(reader, "m-99") == [f"m-{number}" for number in range(100)], "in their order"
        assert await waiting(channel, outbound_queue("p00")) == 100


async def test_a_copy_is_what_the_webhooks_get_and_its_key_tells_it_from_the_original(
    make_rabbit: MakeBroker, node: Node
) -> None:
    broker = await make_rabbit()
    async with strangers(node) as channel:
        reader = await bound(channel, pattern="response.ch_1.text.*")
        # An earlier version bound the queues of ours here too; no copy may get into them.
        earlier = await channel.get_queue(outbound_queue("p00"))
        await earlier.bind(RESPONSES, "#.p00")
        await say(broker, range(1), b'{"n": 1}')
        async with asyncio.timeout(20), reader.iterator(no_ack=True) as arriving:
            copy = await anext(arriving)
        assert (copy.message_id, copy.body, copy.routing_key) == ("m-0", b'{"n": 1}', COPY_KEY)
        assert copy.headers == {"postbote-turn": "1/1"}
        assert await waiting(channel, outbound_queue("p00")) == 1
        # A worker of the earlier version that still runs publishes there.
        await broker.publish(RESPONSES, response(1))
        assert await waiting(channel, outbound_queue("p00")) == 2


async def test_what_nobody_reads_goes_nowhere_and_who_begins_to_read_gets_it_soon(
    make_rabbit: MakeBroker, node: Node
) -> None:
    broker = await make_rabbit()
    await say(broker, range(20))
    async with strangers(node) as channel:
        reader = await bound(channel)
        began = time.monotonic()
        number = 100
        async with asyncio.timeout(20):
            while not await waiting(channel, "stranger"):
                await say(broker, range(number, number + 1))
                number += 1
        assert time.monotonic() - began < UNREAD_S + 3.0
        first = (await copies(reader, f"m-{number - 1}"))[0]
        assert int(first.removeprefix("m-")) >= 100
        assert await waiting(channel, UNROUTED) == 0


@on_one_node
async def test_what_a_cut_left_in_doubt_is_copied_again(make_rabbit: MakeBroker, node: Node) -> None:
    broker = await make_rabbit()
    async with strangers(node) as channel:
        await bound(channel)
        cut = asyncio.create_task(asyncio.to_thread(node.ctl, "close_all_connections", "tests"))
        number = 0
        while not cut.done():
            broker.copy(response(number))
            number += 1
            await asyncio.sleep(0.001)
        broker.copy(response(number))
        async with await aio_pika.connect(node.url) as connection, connection.channel() as again:
            taken = await copies(await again.get_queue("stranger"), f"m-{number}")
    assert list(dict.fromkeys(taken)) == [f"m-{one}" for one in range(number + 1)]


@on_one_node
async def test_a_missing_exchange_for_copies_costs_nothing_but_them(
    make_rabbit: MakeBroker, node: Node
) -> None:
    broker = await make_rabbit()
    async with strangers(node) as channel:
        await channel.exchange_delete(RESPONSES)
        await say(broker, range(50))
        assert await waiting(channel, outbound_queue("p00")) == 50
    await asyncio.wait_for(broker.close(), 4.0)
