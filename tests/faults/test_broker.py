"""RabbitMQ stops, dies, runs short of memory, or closes what a consumer holds."""

import asyncio
import time

import pytest
from receivers import Receiver, opened
from servers.rabbitmq_program import ProgramNode
from stage import Stage, by_hand

ALARM_S = 20.0


async def test_the_node_dies_and_comes_back(stage: Stage, node: ProgramNode) -> None:
    one, two = Receiver("one"), Receiver("two")
    async with opened(one, two):
        await stage.start_all("api", "bot", "deliver")
        await stage.channel(one, two)
        load = stage.load()
        async with load.flowing():
            await stage.arrivals(load, 50)
            with stage.strike("node killed"):
                node.kill()
                await by_hand(node.start)
            await stage.arrivals(load, 50)
        await stage.judge(
            "SIGKILL of the RabbitMQ node, and restart",
            load,
            # Both workers lose their connections, and the API what it was publishing.
            most_repeated=stage.most_in_flight(2),
        )
        load.refused_promptly()


@pytest.mark.long
@pytest.mark.timeout(300)
async def test_the_broker_application_stops_and_starts_again_and_again(
    stage: Stage, node: ProgramNode
) -> None:
    one, two = Receiver("one"), Receiver("two")
    async with opened(one, two):
        await stage.start_all("api", "bot", "bot", "deliver", "deliver")
        await stage.channel(one, two)
        load = stage.load()
        async with load.flowing():
            for _ in range(3):
                await stage.arrivals(load, 50)
                with stage.strike("stop_app"):
                    await by_hand(lambda: node.ctl("stop_app"))
                    await asyncio.sleep(3.0)
                    await by_hand(lambda: node.ctl("start_app"))
            await stage.arrivals(load, 50)
        slowest = max((refusal.lasted_s for refusal in load.refusals), default=0.0)
        await stage.judge(
            "rabbitmqctl stop_app and start_app, three times",
            load,
            most_repeated=stage.most_in_flight(6),
            notes={"slowest refusal in s": slowest},
        )
        load.refused_promptly()


@pytest.mark.long
@pytest.mark.timeout(300)
async def test_the_node_dies_three_times(stage: Stage, node: ProgramNode) -> None:
    one, two = Receiver("one"), Receiver("two")
    async with opened(one, two):
        await stage.start_all("api", "bot", "bot", "deliver", "deliver")
        await stage.channel(one, two)
        load = stage.load()
        async with load.flowing():
            for _ in range(3):
                await stage.arrivals(load, 50)
                with stage.strike("node killed"):
                    node.kill()
                    await by_hand(node.start)
            await stage.arrivals(load, 50)
        await stage.judge(
            "SIGKILL of the RabbitMQ node, three times", load, most_repeated=stage.most_in_flight(6)
        )


@pytest.mark.long
@pytest.mark.timeout(300)
async def test_the_node_stands_still_for_60_s(stage: Stage, node: ProgramNode) -> None:
    one, two = Receiver("one"), Receiver("two")
    async with opened(one, two):
        await stage.start_all("api", "bot", "bot", "deliver", "deliver")
        await stage.channel(one, two)
        load = stage.load()
        async with load.flowing():
            await stage.arrivals(load, 50)
            with stage.strike("node frozen"):
                node.pause()
                # Longer than three heartbeats: the workers notice, and connect anew to a node that says nothing.
                await asyncio.sleep(60.0)
                node.resume()
            await stage.arrivals(load, 50)
        await stage.judge(
            "SIGSTOP of the RabbitMQ node for 60 s", load, most_repeated=stage.most_in_flight(2)
        )


@pytest.mark.long
@pytest.mark.timeout(300)
async def test_deliveries_go_on_while_a_memory_alarm_blocks_publishers(
    stage: Stage, node: ProgramNode
) -> None:
    quick, slow = Receiver("quick"), Receiver("slow")
    async with opened(quick, slow):
        _, _, deliver = await stage.start_all("api", "bot", "deliver")
        await stage.channel(quick, slow)
        load = stage.load()
        async with load.flowing():
            await stage.arrivals(load, 50)
            # A store of responses on the queues, that is delivered while nothing new can be published.
            deliver.freeze()
            in_store = load.accepted()
            await stage.wait_for(lambda: load.accepted() > in_store + 600, 30.0)
            with stage.strike("memory alarm"):
                await by_hand(lambda: node.ctl("set_vm_memory_high_watermark", "0"))
                arrived, posted = quick.distinct, load.accepted()
                began = time.monotonic()
                deliver.thaw()
                assert await stage.wait_for(lambda: quick.distinct >= arrived + 500, ALARM_S), (
                    f"{quick.distinct - arrived} deliveries in {ALARM_S:g} s of the alarm"
                )
                await asyncio.sleep(max(0.0, began + ALARM_S - time.monotonic()))
                # Those that were on their way when it struck are all that may have got through.
                assert load.accepted() - posted <= load.users
                await by_hand(lambda: node.ctl("set_vm_memory_high_watermark", "0.4"))
            await stage.arrivals(load, 50)
        during = [refusal for refusal in load.refusals if refusal.at < stage.strikes[-1].ended]
        assert during
        await stage.judge(
            "memory alarm for 20 s",
            load,
            most_repeated=0,
            notes={"slowest refusal in s": max(refusal.lasted_s for refusal in during)},
        )
        load.refused_promptly()


@pytest.mark.long
@pytest.mark.timeout(300)
async def test_the_server_closes_the_amqp_channels_of_consumers(
    stage: Stage, node: ProgramNode, vhost: str
) -> None:
    one, two = Receiver("one"), Receiver("two")
    async with opened(one, two):
        await stage.start_all("api", "bot", "bot", "deliver", "deliver")
        await stage.channel(one, two)
        load = stage.load()
        async with load.flowing():
            for _ in range(3):
                await stage.arrivals(load, 50)
                with stage.strike("AMQP channels closed"):
                    await by_hand(lambda: node.ctl("eval", close_consuming_channels(vhost)))
            await stage.arrivals(load, 50)
        await stage.judge(
            "AMQP channels of all consumers closed by the server, three times",
            load,
            most_repeated=stage.most_in_flight(6),
        )


@pytest.mark.long
@pytest.mark.timeout(300)
async def test_the_server_closes_connections(stage: Stage, node: ProgramNode, vhost: str) -> None:
    one, two = Receiver("one"), Receiver("two")
    async with opened(one, two):
        await stage.start_all("api", "bot", "bot", "deliver", "deliver")
        await stage.channel(one, two)
        load = stage.load()
        async with load.flowing():
            for _ in range(3):
                await stage.arrivals(load, 50)
                with stage.strike("connections closed"):
                    await by_hand(lambda: node.ctl("close_all_connections", "-p", vhost, "for a test"))
            await stage.arrivals(load, 50)
        await stage.judge(
            "all connections closed by the server, three times",
            load,
            most_repeated=stage.most_in_flight(6),
        )


def close_consuming_channels(vhost: str) -> str:
    """Write the Erlang that ends every AMQP channel of a virtual host on which somebody consumes."""
    return (
        f"[exit(proplists:get_value(pid, C), kill) || C <- rabbit_channel:info_all([pid, vhost, consumer_count]), "
        f'proplists:get_value(vhost, C) =:= <<"{vhost}">>, proplists:get_value(consumer_count, C) > 0].'
    )
