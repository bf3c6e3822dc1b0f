"""Workers find each other over a real RabbitMQ, miss who dies, and keep their heads when they hear nothing."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import aio_pika
import pytest
from servers.rabbitmq import kinds_here
from servers.rabbitmq_node import Node

from broker.news import ChannelNews
from broker.port import Broker
from broker.topology import CONTROL
from consumers.heartbeats import DEAF_AFTER_S, Heartbeats
from consumers.roster import DEAD_AFTER_S
from consumers.serving import Stop

MakeBroker = Callable[..., Awaitable[Broker]]
#: For what takes long and tells of our own code only.
on_one_node = pytest.mark.parametrize("node", kinds_here()[-1:], indirect=True)
#: What a busy machine may add, in seconds.
BUSY_S = 10.0


@asynccontextmanager
async def working(broker: Broker, kind: str = "deliver") -> AsyncIterator[Heartbeats]:
    """Run the heartbeats of one worker; leaving says goodbye, where the broker can be reached."""
    beats, stop = Heartbeats(broker, kind), Stop(0.0)
    running = asyncio.create_task(beats.run(stop))
    try:
        yield beats
        assert not running.done(), "heartbeats do not end by themselves"
    finally:
        stop.set()
        await running


async def agreed(*workers: Heartbeats, within_s: float) -> None:
    """Wait until each knows exactly these workers."""
    wanted = frozenset(worker.me for worker in workers)
    async with asyncio.timeout(within_s):
        for worker in workers:
            while worker.workers != wanted:
                await worker.changed(worker.workers)


async def test_workers_of_a_kind_find_each_other_and_one_that_leaves_is_gone_at_once(
    make_rabbit: MakeBroker,
) -> None:
    one, other, third = await make_rabbit(), await make_rabbit(), await make_rabbit()
    async with working(one) as first, working(third, "bot") as stranger:
        await agreed(first, within_s=BUSY_S)
        async with working(other) as second:
            await agreed(first, second, within_s=BUSY_S)
            assert first.number == second.number == 2
        # It said so: nobody waits until it has been silent for long.
        await agreed(first, within_s=DEAD_AFTER_S / 2)
        assert stranger.workers == {stranger.me}


async def test_one_that_dies_without_a_word_is_missed(make_rabbit: MakeBroker) -> None:
    one, other = await make_rabbit(), await make_rabbit()
    async with working(one) as first, working(other) as second:
        await agreed(first, second, within_s=BUSY_S)
        await other.close()
        await agreed(first, within_s=DEAD_AFTER_S + BUSY_S)


@on_one_node
async def test_under_an_alarm_nobody_is_declared_dead(make_rabbit: MakeBroker, node: Node) -> None:
    one, other = await make_rabbit(), await make_rabbit()
    async with working(one) as first, working(other) as second:
        await agreed(first, second, within_s=BUSY_S)
        both = first.workers
        await asyncio.to_thread(node.ctl, "set_vm_memory_high_watermark", "0.0000001")
        try:
            changes = [asyncio.create_task(worker.changed(both)) for worker in (first, second)]
            done, _ = await asyncio.wait(changes, timeout=DEAD_AFTER_S + 1.5)
            assert not done
        finally:
            await asyncio.to_thread(node.ctl, "set_vm_memory_high_watermark", "0.9")
        done, _ = await asyncio.wait(changes, timeout=2.0)
        assert not done, "nor when it is over"
        for change in changes:
            change.cancel()
        await asyncio.gather(*changes, return_exceptions=True)
        await other.close()
        await agreed(first, within_s=DEAD_AFTER_S + BUSY_S)


@on_one_node
async def test_whoever_is_deaf_without_being_told_listens_anew(make_rabbit: MakeBroker, node: Node) -> None:
    one = await make_rabbit()
    async with working(one) as first:
        await agreed(first, within_s=BUSY_S)
        # Its queue and its consumer stand; only nothing leads there any more.
        async with await aio_pika.connect(node.url) as connection, connection.channel() as channel:
            await channel.exchange_delete(CONTROL)
        async with working(await make_rabbit()) as second:
            await agreed(first, second, within_s=DEAF_AFTER_S + BUSY_S)


async def test_a_change_of_a_channel_is_heard_of_by_every_worker(make_rabbit: MakeBroker) -> None:
    api, worker = await make_rabbit(), await make_rabbit()
    heard: asyncio.Queue[str] = asyncio.Queue()
    beats, stop = Heartbeats(worker, "deliver", heard.put_nowait), Stop(0.0)
    running = asyncio.create_task(beats.run(stop))
    await agreed(beats, within_s=BUSY_S)
    news = ChannelNews(api)
    news.changed("ch_1")
    news.changed("ch_2")
    async with asyncio.timeout(BUSY_S):
        assert [await heard.get(), await heard.get()] == ["ch_1", "ch_2"]
    await news.close()
    stop.set()
    await running


@on_one_node
async def test_news_of_a_channel_delay_nobody_while_the_broker_is_away(
    make_rabbit: MakeBroker, node: Node
) -> None:
    news = ChannelNews(await make_rabbit())
    await asyncio.to_thread(node.ctl, "stop_app")
    try:
        for number in range(2000):
            news.changed(f"ch_{number}")
        async with asyncio.timeout(BUSY_S):
            await news.close()
    finally:
        await asyncio.to_thread(node.ctl, "start_app")
