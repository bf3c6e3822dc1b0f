"""What befalls a RabbitMQ, and what the adapter makes of it."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import aio_pika
import pytest
from servers.rabbitmq import kinds_here
from servers.rabbitmq_node import Node
from yarl import URL

from broker.errors import BrokerUnavailable, SubscriptionLost, TopologyMismatch
from broker.port import Broker, Envelope, Subscription
from broker.rabbitmq.broker import RabbitBroker
from broker.topology import INBOUND, MESSAGES, Topology, inbound_key, inbound_queue

MakeBroker = Callable[..., Awaitable[Broker]]
QUEUE = inbound_queue("p00")
KEY = inbound_key("ch_1", 0)
#: For what takes long and tells of our own code only.
on_one_node = pytest.mark.parametrize("node", kinds_here()[-1:], indirect=True)
#: Seconds that `make_rabbit`'s brokers wait for a confirm, and what a busy machine may add.
GIVES_UP_S = 1.0 + 2.0


def envelope(number: int) -> Envelope:
    """Make a message that can be told from others."""
    return Envelope(f"m-{number}", b"{}", KEY)


async def take(subscription: Subscription, count: int) -> list[Envelope]:
    """Receive until there are `count` messages."""
    taken: list[Envelope] = []
    async with asyncio.timeout(30):
        while len(taken) < count:
            taken.extend(await subscription.receive())
    return taken


def ids(envelopes: Sequence[Envelope]) -> list[str]:
    """List the ids."""
    return [one.id for one in envelopes]


async def publish_until_taken(broker: Broker, one: Envelope) -> None:
    """Publish again and again, as a worker does; each try waits for the broker in its own time."""
    async with asyncio.timeout(60):
        while True:
            try:
                await broker.publish(INBOUND, one)
            except BrokerUnavailable:
                continue
            return


async def reason_of_check(broker: Broker) -> str:
    """Return why the broker cannot take messages now, or nothing."""
    try:
        await broker.check()
    except BrokerUnavailable as error:
        return str(error)
    return ""


async def first_id(broker: Broker) -> str:
    """Subscribe, and return the id of the first message in the queue."""
    async with broker.subscribe(QUEUE, 5) as subscription:
        return ids(await take(subscription, 1))[0]


@asynccontextmanager
async def stopped_app(node: Node) -> AsyncIterator[None]:
    """Stop RabbitMQ within the node, which refuses connections meanwhile."""
    await asyncio.to_thread(node.ctl, "stop_app")
    try:
        yield
    finally:
        await asyncio.to_thread(node.ctl, "start_app")


async def test_connections_closed_by_the_server(make_rabbit: MakeBroker, node: Node) -> None:
    broker = await make_rabbit()
    for number in range(5):
        await broker.publish(INBOUND, envelope(number))
    async with broker.subscribe(QUEUE, 50) as subscription:
        taken = await take(subscription, 5)
        subscription.ack(taken[0])
        await subscription.flush()
        receiving = asyncio.create_task(subscription.receive())
        await asyncio.to_thread(node.ctl, "close_all_connections", "tests")
        with pytest.raises(SubscriptionLost):
            await receiving
        subscription.ack(taken[1])
        await subscription.flush()
        with pytest.raises(SubscriptionLost):
            await subscription.receive()
    async with broker.subscribe(QUEUE, 50) as subscription:
        again = await take(subscription, 4)
        assert ids(again) == ["m-1", "m-2", "m-3", "m-4"]
        assert all(one.redelivered for one in again)
        await publish_until_taken(broker, envelope(5))
        assert ids(await take(subscription, 1)) == ["m-5"]


@on_one_node
async def test_an_outage_fails_publishes_in_time_and_is_recovered_from(
    make_rabbit: MakeBroker, node: Node, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    broker = await make_rabbit()
    await broker.publish(INBOUND, envelope(0))
    late = RabbitBroker(node.url, Topology(4))
    async with stopped_app(node):
        async with asyncio.timeout(GIVES_UP_S):
            results = await asyncio.gather(
                *(broker.publish(INBOUND, envelope(number)) for number in range(1, 301)),
                return_exceptions=True,
            )
        assert {type(result) for result in results} == {BrokerUnavailable}
        assert "cannot be used" in await reason_of_check(broker)
        starting = asyncio.create_task(late.start())
        subscribing = asyncio.create_task(first_id(broker))
    await publish_until_taken(broker, envelope(301))
    assert await reason_of_check(broker) == ""
    async with asyncio.timeout(30):
        assert await subscribing == "m-0"
        await starting
        async with late.subscribe(QUEUE, 500) as subscription:
            arrived = ids(await take(subscription, 2))
    assert (arrived[0], arrived[-1]) == ("m-0", "m-301")
    await late.close()
    # One line of ours for each change of state; the client library's tracebacks are nobody's business.
    assert [record.name for record in caplog.records] == []


@on_one_node
async def test_a_node_that_stands_still_is_given_up_on_and_found_again(
    make_rabbit: MakeBroker, node: Node
) -> None:
    broker = await make_rabbit()
    await broker.publish(INBOUND, envelope(0))
    await asyncio.to_thread(node.pause)
    try:
        async with asyncio.timeout(GIVES_UP_S):
            with pytest.raises(BrokerUnavailable, match="no confirm within 1 s"):
                await broker.publish(INBOUND, envelope(1))
        async with asyncio.timeout(GIVES_UP_S):
            with pytest.raises(BrokerUnavailable):
                await broker.publish(INBOUND, envelope(2))
    finally:
        await asyncio.to_thread(node.resume)
    await publish_until_taken(broker, envelope(3))
    async with broker.subscribe(QUEUE, 50) as subscription:
        arrived = ids(await take(subscription, 2))
        while arrived[-1] != "m-3":
            arrived += ids(await take(subscription, 1))
    # What timed out may have arrived or not; what was confirmed has, and in order.
    assert arrived == sorted(arrived)
    assert {"m-0", "m-3"} <= set(arrived)


@on_one_node
async def test_an_alarm_stops_publishing_and_not_delivering(make_rabbit: MakeBroker, node: Node) -> None:
    broker = await make_rabbit()
    for number in range(4):
        await broker.publish(INBOUND, envelope(number))
    async with broker.subscribe(QUEUE, 2) as subscription:
        taken = await take(subscription, 2)
        await asyncio.to_thread(node.ctl, "set_vm_memory_high_watermark", "0.0000001")
        try:
            # What was sent before the alarm was known is taken when it ends. Sent again, it would come twice.
            held_up = asyncio.create_task(broker.publish(INBOUND, envelope(4)))
            await asyncio.wait({held_up}, timeout=GIVES_UP_S)
            assert not held_up.done()
            async with asyncio.timeout(GIVES_UP_S):
                with pytest.raises(BrokerUnavailable, match="short of memory or disk"):
                    await broker.publish(INBOUND, envelope(5))
            assert "short of memory or disk" in await reason_of_check(broker)
            for one in taken:
                subscription.ack(one)
            between = await take(subscription, 2)
            assert ids(between) == ["m-2", "m-3"]
        finally:
            await asyncio.to_thread(node.ctl, "set_vm_memory_high_watermark", "0.9")
        await asyncio.wait_for(held_up, 30)
        await publish_until_taken(broker, envelope(6))
        for one in between:
            subscription.ack(one)
        assert ids(await take(subscription, 2)) == ["m-4", "m-6"]
    await broker.check()


async def test_a_deleted_queue_ends_the_subscription_and_is_made_anew(
    make_rabbit: MakeBroker, node: Node
) -> None:
    broker = await make_rabbit()
    async with broker.subscribe(QUEUE, 50) as subscription:
        receiving = asyncio.create_task(subscription.receive())
        async with await aio_pika.connect(node.url) as connection, connection.channel() as channel:
            await channel.queue_delete(QUEUE)
        with pytest.raises(SubscriptionLost):
            await receiving
    async with broker.subscribe(QUEUE, 50) as subscription:
        await broker.publish(INBOUND, envelope(1))
        assert ids(await take(subscription, 1)) == ["m-1"]


#: Takes the consumers of a queue off it, as a change of its leader may: neither they nor their AMQP channels hear
#: of it.
DROP_CONSUMERS = """
{ok, Queue} = rabbit_amqqueue:lookup(rabbit_misc:r(<<"/">>, queue, <<"%s">>)),
[{ok, _, _} = ra:process_command(amqqueue:get_pid(Queue),
    rabbit_fifo:make_checkout({element(2, Consumer), element(1, Consumer)}, cancel, #{}))
 || Consumer <- rabbit_amqqueue:consumers(Queue)].
"""


async def test_a_consumer_that_was_dropped_without_a_word_is_noticed(
    make_rabbit: MakeBroker, node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("broker.rabbitmq.subscription.WATCH_S", 0.5)
    broker = await make_rabbit()
    async with broker.subscribe(QUEUE, 50) as subscription:
        await broker.publish(INBOUND, envelope(0))
        subscription.ack((await take(subscription, 1))[0])
        await subscription.flush()
        dropped = await asyncio.to_thread(node.ctl, "eval", DROP_CONSUMERS % QUEUE)
        assert "{ok," in dropped, "there was one to drop"
        await broker.publish(INBOUND, envelope(1))
        async with asyncio.timeout(20):
            with pytest.raises(SubscriptionLost, match="does not know this consumer"):
                await subscription.receive()
    async with broker.subscribe(QUEUE, 50) as subscription:
        assert ids(await take(subscription, 1)) == ["m-1"]


async def test_a_consumer_that_waits_behind_another_is_no_lost_one(
    make_rabbit: MakeBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("broker.rabbitmq.subscription.WATCH_S", 0.2)
    holding, waiting = await make_rabbit(), await make_rabbit()
    async with holding.subscribe(QUEUE, 50) as first, waiting.subscribe(QUEUE, 50) as second:
        receiving = asyncio.create_task(second.receive())
        # Some ten looks of each.
        done, _ = await asyncio.wait({receiving}, timeout=2.0)
        assert not done
        await holding.publish(INBOUND, envelope(0))
        assert ids(await take(first, 1)) == ["m-0"]
        receiving.cancel()
        await asyncio.gather(receiving, return_exceptions=True)


@on_one_node
async def test_partitions_that_stop_to_fit_meanwhile_are_waited_out(
    make_rabbit: MakeBroker, node: Node
) -> None:
    broker = await make_rabbit()
    async with await aio_pika.connect(node.url) as connection, connection.channel() as channel:
        await channel.declare_queue(inbound_queue("p04"), durable=True, arguments={"x-queue-type": "quorum"})
    await asyncio.to_thread(node.ctl, "close_all_connections", "tests")
    async with asyncio.timeout(30):
        while "5 partitions" not in await reason_of_check(broker):  # noqa: ASYNC110 - the broker sends no event
            await asyncio.sleep(0.05)
    with pytest.raises(BrokerUnavailable, match="5 partitions"):
        await broker.announce(b"nobody can hear it")
    holding = asyncio.create_task(first_id(broker))
    done, _ = await asyncio.wait({holding}, timeout=1.0)
    assert not done, "it waits for an operator"
    async with await aio_pika.connect(node.url) as connection, connection.channel() as channel:
        await channel.queue_delete(inbound_queue("p04"))
    async with asyncio.timeout(30):
        while await reason_of_check(broker):  # noqa: ASYNC110 - the broker sends no event
            await asyncio.sleep(0.05)
    await broker.publish(INBOUND, envelope(7))
    assert await asyncio.wait_for(holding, 30) == "m-7"


async def test_a_queue_of_another_kind_is_refused_by_name(make_rabbit: MakeBroker, node: Node) -> None:
    async with await aio_pika.connect(node.url) as connection, connection.channel() as channel:
        await channel.declare_queue(MESSAGES, durable=True)
    with pytest.raises(TopologyMismatch, match=r"postbote\.messages in another shape"):
        await make_rabbit()


async def test_a_user_without_the_right_to_configure_works_on_what_is_there(
    make_rabbit: MakeBroker, node: Node
) -> None:
    await asyncio.to_thread(node.ctl, "add_user", "worker", "secret")
    worker = RabbitBroker(str(URL(node.url).with_user("worker").with_password("secret")), Topology(4))
    try:
        own = r"^postbote\."
        await asyncio.to_thread(node.ctl, "set_permissions", "worker", "^$", own, own)
        with pytest.raises(TopologyMismatch, match="may not declare"):
            await worker.start()
        await make_rabbit()
        worker = RabbitBroker(str(URL(node.url).with_user("worker").with_password("secret")), Topology(4))
        await worker.start()
        await worker.publish(INBOUND, envelope(1))
        async with worker.subscribe(QUEUE, 5) as subscription:
            assert ids(await take(subscription, 1)) == ["m-1"]
    finally:
        await worker.close()
        await asyncio.to_thread(node.ctl, "delete_user", "worker")


@on_one_node
async def test_a_wrong_password_is_told_and_never_shown(node: Node) -> None:
    broker = RabbitBroker(str(URL(node.url).with_password("hunter2")), Topology(4), publish_timeout_s=0.2)
    starting = asyncio.create_task(broker.start())
    reason = ""
    try:
        async with asyncio.timeout(30):
            while "refuses the user or the password" not in reason:
                with pytest.raises(BrokerUnavailable) as refusal:
                    await broker.publish(INBOUND, envelope(0))
                reason = str(refusal.value)
        assert "hunter2" not in reason
        assert not starting.done()
    finally:
        starting.cancel()
        await asyncio.wait({starting})
        await broker.close()


async def test_odd_messages_of_outside_programs_are_readable(make_rabbit: MakeBroker, node: Node) -> None:
    broker = await make_rabbit()
    odd = aio_pika.Message(
        b"\xff\x00",
        headers={
            "bytes": bytearray(b"caf\xc3\xa9"),
            "float": 1.5,
            "list": ["a"],
            "table": {"a": 1},
            "time": datetime.now(UTC),
            "nothing": None,
            "text": "t",
            "number": 7,
            "truth": True,
        },
    )
    async with await aio_pika.connect(node.url) as connection, connection.channel() as channel:
        await channel.default_exchange.publish(odd, MESSAGES)
        await channel.default_exchange.publish(aio_pika.Message(b"", message_id="given"), MESSAGES)
    async with broker.subscribe(MESSAGES, 5) as subscription:
        first, second = await take(subscription, 2)
    assert first.body == b"\xff\x00"
    assert first.headers == {"bytes": "café", "text": "t", "number": 7, "truth": True}
    assert (second.id, second.headers, second.routing_key) == ("given", {}, MESSAGES)


async def test_unconfirmed_publishes_of_a_killed_node_are_told_and_confirmed_ones_kept(
    fresh_node: Node,
) -> None:
    broker = RabbitBroker(fresh_node.url, Topology(4), publish_timeout_s=1.0)
    await broker.start()
    confirmed: list[str] = []
    under_way = asyncio.Event()

    async def publisher(numbers: Iterator[int]) -> None:
        for number in numbers:
            try:
                await broker.publish(INBOUND, envelope(number))
            except BrokerUnavailable:
                return
            confirmed.append(f"m-{number}")
            if len(confirmed) >= 200:
                under_way.set()

    endless = iter(range(10_000_000))
    publishing = [asyncio.create_task(publisher(endless)) for _ in range(50)]
    async with asyncio.timeout(30):
        await under_way.wait()
    await asyncio.to_thread(fresh_node.kill)
    async with asyncio.timeout(GIVES_UP_S):
        await asyncio.gather(*publishing)
    await asyncio.to_thread(fresh_node.start)
    await publish_until_taken(broker, Envelope("last", b"{}", KEY))
    arrived: list[str] = []
    async with broker.subscribe(QUEUE, 5000) as subscription:
        while "last" not in arrived:
            for one in await take(subscription, 1):
                arrived.append(one.id)
                subscription.ack(one)
    await broker.close()
    assert set(confirmed) <= set(arrived)
