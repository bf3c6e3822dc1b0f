"""Direct exchanges to the partitions, beside publishers, readers and queues of the version before."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import aio_pika
import pytest
from aio_pika.abc import AbstractChannel, AbstractIncomingMessage
from servers.rabbitmq import kinds_here
from servers.rabbitmq_node import Node

from broker.errors import BrokerUnavailable
from broker.port import Broker, Envelope, Subscription
from broker.topology import INBOUND, INBOUND_DIRECT, UNROUTED, inbound_key, inbound_queue

MakeBroker = Callable[..., Awaitable[Broker]]
on_one_node = pytest.mark.parametrize("node", kinds_here()[-1:], indirect=True)
QUEUE, KEY = inbound_queue("p00"), inbound_key("ch_1", 0)


@asynccontextmanager
async def operator(node: Node) -> AsyncIterator[AbstractChannel]:
    async with await aio_pika.connect(node.url) as connection, connection.channel() as channel:
        yield channel


async def take(subscription: Subscription, number: int) -> list[Envelope]:
    taken: list[Envelope] = []
    async with asyncio.timeout(30):
        while len(taken) < number:
            taken += await subscription.receive()
    return taken


async def test_a_message_needs_no_topic_and_keeps_its_whole_key(make_rabbit: MakeBroker, node: Node) -> None:
    broker = await make_rabbit()
    async with operator(node) as channel:
        queue = await channel.get_queue(QUEUE)
        await queue.unbind(INBOUND, "#.p00")
    await broker.publish(INBOUND, Envelope("m-0", b"{}", KEY, {"postbote-turn": "1/1"}))
    async with broker.subscribe(QUEUE, 5) as subscription:
        (arrived,) = await take(subscription, 1)
    assert (arrived.id, arrived.routing_key, arrived.body) == ("m-0", KEY, b"{}")
    assert dict(arrived.headers) == {"postbote-turn": "1/1"}


async def test_an_earlier_version_publishes_to_the_same_queue(make_rabbit: MakeBroker, node: Node) -> None:
    broker = await make_rabbit()
    async with operator(node) as channel:
        exchange = await channel.get_exchange(INBOUND)
        for number in range(0, 6, 2):
            earlier = aio_pika.Message(b"{}", message_id=f"m-{number}", content_type="application/json")
            await exchange.publish(earlier, KEY)
            await broker.publish(INBOUND, Envelope(f"m-{number + 1}", b"{}", KEY))
        await (await channel.get_queue(QUEUE)).unbind(INBOUND, "#.p00")
        await broker.publish(INBOUND, Envelope("m-6", b"{}", KEY))
    async with broker.subscribe(QUEUE, 10) as subscription:
        arrived = await take(subscription, 7)
    assert [one.id for one in arrived] == [f"m-{number}" for number in range(7)]
    assert {one.routing_key for one in arrived} == {KEY}


async def test_an_earlier_version_reads_what_this_one_publishes(make_rabbit: MakeBroker, node: Node) -> None:
    broker = await make_rabbit()
    await broker.publish(INBOUND, Envelope("m-0", b'{"a": 1}', KEY))
    arrived: asyncio.Queue[AbstractIncomingMessage] = asyncio.Queue()
    async with operator(node) as channel:
        await (await channel.get_queue(QUEUE)).consume(arrived.put, no_ack=True)
        message = await asyncio.wait_for(arrived.get(), 30)
    assert (message.message_id, message.body, message.content_type) == (
        "m-0",
        b'{"a": 1}',
        "application/json",
    )
    assert (message.exchange, message.routing_key, message.type) == (INBOUND_DIRECT, "p00", KEY)


@on_one_node
async def test_what_finds_no_binding_is_refused_and_not_put_aside(
    make_rabbit: MakeBroker, node: Node
) -> None:
    broker = await make_rabbit()
    async with operator(node) as channel:
        queue = await channel.get_queue(QUEUE)
        await queue.unbind(INBOUND_DIRECT, "p00")
        with pytest.raises(BrokerUnavailable, match="no queue takes its routing key"):
            await broker.publish(INBOUND, Envelope("m-0", b"{}", KEY))
        assert (await channel.declare_queue(UNROUTED, passive=True)).declaration_result.message_count == 0
        await queue.bind(INBOUND_DIRECT, "p00")
        await broker.publish(INBOUND, Envelope("m-0", b"{}", KEY))
    async with broker.subscribe(QUEUE, 5) as subscription:
        assert [one.id for one in await take(subscription, 1)] == ["m-0"]


@on_one_node
async def test_a_deployment_of_an_earlier_version_gets_them_at_the_next_start(
    make_rabbit: MakeBroker, node: Node
) -> None:
    earlier = await make_rabbit()
    await earlier.publish(INBOUND, Envelope("m-0", b"{}", KEY))
    await earlier.close()
    async with operator(node) as channel:
        await channel.exchange_delete(INBOUND_DIRECT)
    broker = await make_rabbit()
    await broker.publish(INBOUND, Envelope("m-1", b"{}", KEY))
    async with broker.subscribe(QUEUE, 5) as subscription:
        assert [one.id for one in await take(subscription, 2)] == ["m-0", "m-1"]


@on_one_node
async def test_a_type_that_a_sender_wrote_is_no_key(make_rabbit: MakeBroker, node: Node) -> None:
    broker = await make_rabbit()
    async with operator(node) as channel:
        exchange = await channel.get_exchange(INBOUND)
        await exchange.publish(aio_pika.Message(b"{}", type="message.other.p01", message_id="m-0"), KEY)
    async with broker.subscribe(QUEUE, 5) as subscription:
        (arrived,) = await take(subscription, 1)
    assert (arrived.id, arrived.routing_key) == ("m-0", KEY)
    assert "type" not in (arrived.properties or {})
