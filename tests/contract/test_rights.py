"""The users that the deployment ships may do what they need and no more: deploy/rabbitmq/definitions.json."""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import aio_pika
from aio_pika.abc import AbstractConnection
from aio_pika.exceptions import AMQPError
from servers.rabbitmq_node import Node
from yarl import URL

from broker.port import Broker, Envelope
from broker.rabbitmq.broker import RabbitBroker
from broker.topology import (
    DEAD,
    INBOUND,
    MESSAGES,
    OUTBOUND,
    RESPONSES,
    Topology,
    inbound_key,
    inbound_queue,
    outbound_queue,
    response_key,
)

MakeBroker = Callable[..., Awaitable[Broker]]
DEFINITIONS = json.loads((Path(__file__).parents[2] / "deploy/rabbitmq/definitions.json").read_text())
RIGHTS = {one["user"]: one for one in DEFINITIONS["permissions"]}


@asynccontextmanager
async def shipped(node: Node, user: str) -> AsyncIterator[str]:
    """Make one of the deployment's users on a node, and give the URL to connect as that."""
    rights = RIGHTS[user]
    await asyncio.to_thread(node.ctl, "add_user", user, "secret")
    try:
        await asyncio.to_thread(
            node.ctl, "set_permissions", user, rights["configure"], rights["write"], rights["read"]
        )
        yield str(URL(node.url).with_user(user).with_password("secret"))
    finally:
        await asyncio.to_thread(node.ctl, "delete_user", user)


async def refused(
    connection: AbstractConnection, attempt: Callable[[aio_pika.abc.AbstractChannel], Awaitable[object]]
) -> bool:
    try:
        async with connection.channel() as channel:
            await attempt(channel)
    except AMQPError as error:
        return "ACCESS_REFUSED" in str(error)
    return False


async def test_a_reader_may_bind_queues_of_its_own_to_the_copies_and_to_nothing_else(
    make_rabbit: MakeBroker, node: Node
) -> None:
    broker = await make_rabbit()
    async with (
        shipped(node, "reader") as url,
        await aio_pika.connect(url) as connection,
        connection.channel() as channel,
    ):
        mine = await channel.declare_queue("reader.mine", durable=True, arguments={"x-queue-type": "quorum"})
        await mine.bind(RESPONSES, "response.ch_1.#")
        broker.copy(Envelope("m-1", b"{}", response_key("ch_1", "text", 0)))
        async with asyncio.timeout(20), mine.iterator() as copies:
            assert (await anext(copies)).message_id == "m-1"

        async def declare(ours: aio_pika.abc.AbstractChannel) -> None:
            await ours.declare_queue("postbote.mine")

        async def publish(ours: aio_pika.abc.AbstractChannel) -> None:
            exchange = await ours.get_exchange(RESPONSES, ensure=False)
            await exchange.publish(aio_pika.Message(b""), "response.ch_1.text.c00")

        async def consume(ours: aio_pika.abc.AbstractChannel) -> None:
            queue = await ours.get_queue(outbound_queue("p00"), ensure=False)
            await queue.get(no_ack=True, fail=False)

        for attempt in (declare, publish, consume):
            assert await refused(connection, attempt), attempt.__name__
        for exchange in (MESSAGES, INBOUND, OUTBOUND, DEAD):
            # A queue that is bound to one of these could refuse what conversations need.
            assert await refused(connection, partial(bind, exchange)), exchange
        await mine.delete(if_empty=False, if_unused=False)
    policy = next(one for one in DEFINITIONS["policies"] if re.match(one["pattern"], "reader.mine"))
    assert policy["definition"]["overflow"] == "drop-head", "what it does not read fills no disk"


async def bind(exchange: str, channel: aio_pika.abc.AbstractChannel) -> None:
    queue = await channel.get_queue("reader.mine", ensure=False)
    await queue.bind(exchange, "#")


async def test_the_users_of_the_processes_may_do_what_these_do(make_rabbit: MakeBroker, node: Node) -> None:
    # The administrator's start declares and binds.
    async with shipped(node, "postbote-admin") as url:
        admin = RabbitBroker(url, Topology(4))
        await asyncio.wait_for(admin.start(patient=False), 20)
        await admin.close()
    async with shipped(node, "postbote-bot") as url, shipped(node, "postbote-deliver") as other_url:
        bot, deliver = RabbitBroker(url, Topology(4)), RabbitBroker(other_url, Topology(4))
        try:
            async with asyncio.timeout(30):
                await bot.start(patient=False)
                await deliver.start(patient=False)
                await bot.publish(INBOUND, Envelope("in", b"{}", inbound_key("ch_1", 0)))
                await bot.publish(OUTBOUND, Envelope("out", b"{}", response_key("ch_1", "text", 0)))
                bot.copy(Envelope("out", b"{}", response_key("ch_1", "text", 0)))
                for broker, queue, expected in (
                    (bot, inbound_queue("p00"), "in"),
                    (deliver, outbound_queue("p00"), "out"),
                ):
                    async with broker.listen(), broker.subscribe(queue, 5) as subscription:
                        assert [one.id for one in await subscription.receive()] == [expected]
        finally:
            await bot.close()
            await deliver.close()
    async with shipped(node, "postbote-api") as url:
        api = RabbitBroker(url, Topology(4))
        try:
            async with asyncio.timeout(30):
                await api.start(patient=False)
                await api.publish(INBOUND, Envelope("in", b"{}", inbound_key("ch_1", 0)))
                # Another API process tells of tokens that open nothing any more.
                async with api.listen() as announcements:
                    await api.announce(b"changed")
                    assert await announcements.receive() == b"changed"
        finally:
            await api.close()
