"""A cancellation or a timeout that crosses the client library ends in time, and costs nobody else the connection."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable

import pytest
from servers.rabbitmq import kinds_here
from servers.rabbitmq_node import Node

from broker.port import Broker, Envelope
from broker.rabbitmq.broker import RabbitBroker
from broker.topology import INBOUND, Topology, inbound_key, inbound_queue

MakeBroker = Callable[..., Awaitable[Broker]]
#: For what tells of our own code only.
on_one_node = pytest.mark.parametrize("node", kinds_here()[-1:], indirect=True)
#: What closing may take, in seconds: each connection's farewell, and what a busy machine adds.
CLOSES_S = 4.0
QUEUE = inbound_queue("p00")


@on_one_node
async def test_closing_at_any_moment_of_connecting_ends_in_time(make_rabbit: MakeBroker, node: Node) -> None:
    await make_rabbit()
    chance = random.Random(6)

    async def one() -> float:
        broker = RabbitBroker(node.url, Topology(4))
        starting = asyncio.create_task(broker.start())
        await asyncio.wait({starting}, timeout=chance.uniform(0.0, 0.06))
        if chance.random() < 0.5:
            # As a process does that is told to stop while it starts.
            starting.cancel()
        began = time.monotonic()
        await asyncio.wait_for(broker.close(), CLOSES_S)
        await asyncio.wait_for(asyncio.gather(starting, return_exceptions=True), CLOSES_S)
        return time.monotonic() - began

    took = [await one() for _ in range(200)]
    assert sorted(took)[150] < 0.5


@on_one_node
async def test_closing_at_any_moment_of_reconnecting_ends_in_time(
    make_rabbit: MakeBroker, node: Node
) -> None:
    await make_rabbit()
    chance = random.Random(7)
    brokers = [RabbitBroker(node.url, Topology(4)) for _ in range(20)]
    await asyncio.gather(*(broker.start() for broker in brokers))
    await asyncio.to_thread(node.ctl, "close_all_connections", "tests")

    async def one(broker: RabbitBroker) -> None:
        await asyncio.sleep(chance.uniform(0.1, 0.6))
        await asyncio.wait_for(broker.close(), CLOSES_S)

    await asyncio.gather(*map(one, brokers))
    assert not [task for task in asyncio.all_tasks() if task.get_name().startswith("link-")][2:]


@on_one_node
async def test_giving_up_queues_at_any_moment_costs_no_other_hold(
    make_rabbit: MakeBroker, node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Each hold looks at its queue all the time; what is acknowledged as it is given up is written meanwhile.
    monkeypatch.setattr("broker.rabbitmq.subscription.WATCH_S", 0.001)
    broker = await make_rabbit()
    other = inbound_queue("p01")
    chance = random.Random(8)
    async with broker.subscribe(other, 10) as staying:
        for number in range(60):
            await broker.publish(INBOUND, Envelope(f"{number}", b"{}", inbound_key("ch_1", 0)))
            async with asyncio.timeout(20), broker.subscribe(QUEUE, 50) as given_up:
                for envelope in await given_up.receive():
                    given_up.ack(envelope)
                await asyncio.sleep(chance.uniform(0, 0.01))
        await broker.publish(INBOUND, Envelope("last", b"{}", inbound_key("ch_1", 1)))
        async with asyncio.timeout(20):
            # Raises SubscriptionLost where the connection was lost meanwhile.
            (last,) = await staying.receive()
    assert last.id == "last"


@on_one_node
async def test_cancelling_what_asks_the_broker_costs_nobody_the_connection_and_leaves_no_hold_behind(
    make_rabbit: MakeBroker, node: Node
) -> None:
    broker = await make_rabbit()
    other = inbound_queue("p01")
    chance = random.Random(9)

    async def hold(queue: str) -> None:
        async with broker.subscribe(queue, 50):
            await asyncio.get_running_loop().create_future()

    async def listen() -> None:
        async with broker.listen():
            await asyncio.get_running_loop().create_future()

    async with broker.subscribe(other, 10) as staying:
        for _ in range(100):
            calls = (hold(QUEUE), listen(), broker.announce(b"x"), broker.check(), broker.check())
            asking = [asyncio.create_task(one) for one in calls]
            await asyncio.wait(asking, timeout=chance.uniform(0, 0.01))
            for one in asking:
                one.cancel()
            async with asyncio.timeout(CLOSES_S):
                await asyncio.gather(*asking, return_exceptions=True)
            # Raises BrokerUnavailable where the connection was lost meanwhile.
            await broker.publish(INBOUND, Envelope("", b"{}", inbound_key("ch_1", 2)))
        for partition in (0, 1):
            await broker.publish(INBOUND, Envelope("last", b"{}", inbound_key("ch_1", partition)))
        async with asyncio.timeout(20):
            (last,) = await staying.receive()
            # Were a hold left behind, it would be served and this one would wait for ever.
            async with broker.subscribe(QUEUE, 10) as next_one:
                (first,) = await next_one.receive()
    assert (last.id, first.id) == ("last", "last")
