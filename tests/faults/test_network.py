"""The network between workers and servers cuts, stalls and delays."""

import asyncio

import pytest
from proxy import Proxy, proxied
from receivers import Receiver, opened
from servers.rabbitmq_program import ProgramNode
from stage import PARTITIONS, Stage

from broker.errors import BrokerUnavailable
from broker.port import Envelope
from broker.rabbitmq.broker import RabbitBroker
from broker.topology import INBOUND, Topology, inbound_key

#: Longer than three heartbeats of 15 s.
SILENT_S = 60.0


async def start_behind(stage: Stage, proxy: Proxy, setting: str) -> None:
    """Start an API process beside the proxy, and both workers behind it."""
    await stage.start("api")
    behind = {setting: proxy.url(stage.environment[setting])}
    await asyncio.gather(*(stage.start(command, **behind) for command in ("bot", "deliver")))


async def test_the_network_to_rabbitmq_and_postgresql_cuts(stage: Stage) -> None:
    one, two = Receiver("one"), Receiver("two")
    broker, database = "POSTBOTE_AMQP_URL", "POSTBOTE_DATABASE_URL"
    async with (
        opened(one, two),
        proxied(stage.environment[broker]) as to_broker,
        proxied(stage.environment[database]) as to_database,
    ):
        await stage.start("api")
        behind = {
            broker: to_broker.url(stage.environment[broker]),
            database: to_database.url(stage.environment[database]),
        }
        await asyncio.gather(*(stage.start(command, **behind) for command in ("bot", "deliver")))
        await stage.channel(one, two)
        load = stage.load()
        async with load.flowing():
            for _ in range(3):
                await stage.arrivals(load, 50)
                with stage.strike("cut"):
                    to_broker.cut()
                    to_database.cut()
            await stage.arrivals(load, 50)
            with stage.strike("gone"):
                await to_broker.close()
                await asyncio.sleep(2.0)
                await to_broker.open()
            await stage.arrivals(load, 50)
        await stage.judge(
            "network to RabbitMQ and PostgreSQL cut", load, most_repeated=stage.most_in_flight(8)
        )


@pytest.mark.long
@pytest.mark.timeout(300)
async def test_the_network_to_rabbitmq_cuts_every_second(stage: Stage) -> None:
    one, two = Receiver("one"), Receiver("two")
    async with opened(one, two), proxied(stage.environment["POSTBOTE_AMQP_URL"]) as proxy:
        await start_behind(stage, proxy, "POSTBOTE_AMQP_URL")
        await stage.channel(one, two)
        load = stage.load()
        async with load.flowing():
            await stage.arrivals(load, 50)
            with stage.strike("cut every second"):
                for _ in range(20):
                    await asyncio.sleep(1.0)
                    proxy.cut()
            await stage.arrivals(load, 50)
        await stage.judge(
            "network to RabbitMQ cut every second", load, most_repeated=stage.most_in_flight(40)
        )


@pytest.mark.long
@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("setting", "server"), [("POSTBOTE_AMQP_URL", "RabbitMQ"), ("POSTBOTE_DATABASE_URL", "PostgreSQL")]
)
@pytest.mark.parametrize("seconds", [10.0, SILENT_S])
async def test_the_network_stalls(stage: Stage, setting: str, server: str, seconds: float) -> None:
    one, two = Receiver("one"), Receiver("two")
    async with opened(one, two), proxied(stage.environment[setting]) as proxy:
        await start_behind(stage, proxy, setting)
        await stage.channel(one, two)
        load = stage.load()
        async with load.flowing():
            await stage.arrivals(load, 50)
            with stage.strike("stalled"):
                proxy.stall()
                await asyncio.sleep(seconds)
                proxy.flow()
            await stage.arrivals(load, 50)
        most = stage.most_in_flight(2) if server == "RabbitMQ" else 0
        await stage.judge(
            f"network to {server} stalled for {seconds:g} s", load, most_repeated=most, within_s=120.0
        )


@pytest.mark.long
@pytest.mark.timeout(300)
async def test_a_worker_behind_a_dead_network_is_replaced_by_one_that_is_not(stage: Stage) -> None:
    one, two = Receiver("one"), Receiver("two")
    async with opened(one, two), proxied(stage.environment["POSTBOTE_AMQP_URL"]) as proxy:
        await start_behind(stage, proxy, "POSTBOTE_AMQP_URL")
        await asyncio.gather(*(stage.start(command) for command in ("bot", "deliver")))
        await stage.channel(one, two)
        load = stage.load()
        async with load.flowing():
            await stage.arrivals(load, 50)
            with stage.strike("stalled for some"):
                proxy.stall()
                # RabbitMQ gives up a silent consumer after two heartbeats, and serves the others.
                await asyncio.sleep(SILENT_S)
                assert await stage.wait_for(lambda: load.wanted(stage.channels[0]) - one.distinct < 500, 30.0)
                proxy.flow()
            await stage.arrivals(load, 50)
        await stage.judge(
            "network of one bot and one delivery worker stalled for 60 s",
            load,
            most_repeated=stage.most_in_flight(2),
        )


@pytest.mark.long
@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("setting", "server"), [("POSTBOTE_AMQP_URL", "RabbitMQ"), ("POSTBOTE_DATABASE_URL", "PostgreSQL")]
)
async def test_a_slow_network_turns_nothing_round(stage: Stage, setting: str, server: str) -> None:
    one, two = Receiver("one"), Receiver("two")
    async with opened(one, two), proxied(stage.environment[setting]) as proxy:
        await start_behind(stage, proxy, setting)
        await stage.channel(one, two)
        load = stage.load(rate=60.0)
        async with load.flowing():
            await stage.arrivals(load, 50)
            with stage.strike("delayed"):
                proxy.delay_s = 0.1
                await asyncio.sleep(20.0)
                proxy.delay_s = 0.0
            await stage.arrivals(load, 50)
        await stage.judge(f"network to {server} with 100 ms of delay each way", load, most_repeated=0)


@pytest.mark.long
async def test_publishers_are_told_of_a_network_that_stalls_and_never_cancelled_by_it(
    node: ProgramNode, vhost: str
) -> None:
    # A lane of a worker that is cancelled by surprise would be a conversation that nobody answers any more.
    url = node.url + vhost
    async with proxied(url) as proxy:
        broker = RabbitBroker(proxy.url(url), Topology(PARTITIONS), 5.0)
        await broker.start()
        try:
            over = asyncio.Event()
            told = 0

            async def publish(lane: int) -> None:
                nonlocal told
                number = 0
                while not over.is_set():
                    key = inbound_key("channel", lane % PARTITIONS)
                    try:
                        await broker.publish(INBOUND, Envelope(f"{lane}-{number}", b"", key))
                        number += 1
                    except BrokerUnavailable:
                        told += 1
                        await asyncio.sleep(0.2)
                    await asyncio.sleep(0.1)

            publishing = [asyncio.create_task(publish(lane)) for lane in range(100)]
            await asyncio.sleep(2.0)
            proxy.stall()
            # Longer than a publish waits for its confirm, and after that the AMQP channel for its end.
            await asyncio.sleep(10.0)
            proxy.flow()
            await asyncio.sleep(8.0)
            over.set()
            ended = await asyncio.gather(*publishing, return_exceptions=True)
            assert told
            assert [end for end in ended if end is not None] == []
        finally:
            await broker.close()
