"""Announcements: heard by all who listen at the moment, on each adapter alike, and kept nowhere."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from servers.rabbitmq_node import Node

from broker.errors import BrokerUnavailable, SubscriptionLost
from broker.port import Announcements, Broker

MakeBroker = Callable[..., Awaitable[Broker]]


async def heard(listener: Announcements, count: int) -> list[bytes]:
    async with asyncio.timeout(20):
        return [await listener.receive() for _ in range(count)]


async def test_all_who_listen_hear_it_the_announcer_too_and_nobody_who_comes_later(
    make_broker: MakeBroker,
) -> None:
    broker = await make_broker()
    await broker.announce(b"too early")
    async with broker.listen() as one, broker.listen() as other:
        for number in range(5):
            await broker.announce(b"%d" % number)
        for listener in (one, other):
            assert await heard(listener, 5) == [b"0", b"1", b"2", b"3", b"4"]
        async with broker.listen() as late:
            await broker.announce(b"now")
            assert await heard(late, 1) == [b"now"]


async def test_a_listener_that_is_busy_keeps_the_newest(make_broker: MakeBroker) -> None:
    broker = await make_broker()
    async with broker.listen() as listener:
        for number in range(3000):
            await broker.announce(b"%d" % number)
        got: list[int] = []
        while 2999 not in got:
            got += [int(one) for one in await heard(listener, 1)]
        assert got == sorted(got)


async def test_closing_the_broker_ends_listening(make_broker: MakeBroker) -> None:
    broker = await make_broker()
    async with broker.listen() as listener:
        waiting = asyncio.create_task(listener.receive())
        await asyncio.sleep(0)
        await broker.close()
        with pytest.raises(SubscriptionLost):
            await asyncio.wait_for(waiting, 10)
    with pytest.raises(BrokerUnavailable):
        await broker.announce(b"nobody hears it")


async def test_listeners_of_other_processes_hear_it_and_a_cut_is_told(
    make_rabbit: MakeBroker, node: Node
) -> None:
    one, other = await make_rabbit(), await make_rabbit()
    async with one.listen() as listener:
        await other.announce(b"hello")
        assert await heard(listener, 1) == [b"hello"]
        await asyncio.to_thread(node.ctl, "close_all_connections", "tests")
        with pytest.raises(SubscriptionLost):
            await heard(listener, 1)
    async with one.listen() as listener, asyncio.timeout(30):
        while True:
            try:
                await other.announce(b"again")
                break
            except BrokerUnavailable:
                continue
        assert await heard(listener, 1) == [b"again"]
    assert "postbote.control." not in await asyncio.to_thread(node.ctl, "list_queues", "name")
