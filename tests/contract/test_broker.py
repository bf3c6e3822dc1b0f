"""What every adapter of the broker port promises, checked on each of them."""

import asyncio
import random
from collections.abc import Awaitable, Callable

import pytest

from broker.errors import BrokerUnavailable, SubscriptionLost, TopologyMismatch
from broker.port import Broker, Envelope, Subscription
from broker.topology import (
    DEAD,
    INBOUND,
    MESSAGES,
    OUTBOUND,
    UNROUTED,
    inbound_key,
    inbound_queue,
    outbound_queue,
    response_key,
)

MakeBroker = Callable[..., Awaitable[Broker]]
QUEUE = inbound_queue("p00")
KEY = inbound_key("ch_1", 0)


def envelope(number: int, key: str = KEY) -> Envelope:
    """Make a message that can be told from others."""
    return Envelope(f"m-{number}", b'{"n":%d}' % number, key)


async def publish(broker: Broker, numbers: range) -> None:
    """Publish pipelined: all are on their way before the first is confirmed."""
    await asyncio.gather(*(broker.publish(INBOUND, envelope(number)) for number in numbers))


async def take(subscription: Subscription, count: int) -> list[Envelope]:
    """Receive exactly `count` messages."""
    taken: list[Envelope] = []
    async with asyncio.timeout(20):
        while len(taken) < count:
            taken.extend(await subscription.receive())
    assert len(taken) == count
    return taken


def ids(envelopes: list[Envelope]) -> list[str]:
    """List the ids."""
    return [one.id for one in envelopes]


def named(*numbers: int) -> list[str]:
    """List the ids of messages by their numbers."""
    return [f"m-{number}" for number in numbers]


async def test_what_was_published_is_there_after_closing_and_opening(make_broker: MakeBroker) -> None:
    first = await make_broker()
    await publish(first, range(20))
    await first.close()
    second = await make_broker()
    async with second.subscribe(QUEUE, 50) as subscription:
        assert ids(await take(subscription, 20)) == named(*range(20))


async def test_an_envelope_arrives_as_it_was_sent(broker: Broker) -> None:
    headers: dict[str, str | int | bool] = {
        "text": "Grüße",
        "number": 2**40,
        "negative": -3,
        "yes": True,
        "no": False,
        "empty": "",
    }
    body = bytes(range(256)) * 1000
    await broker.publish(INBOUND, Envelope("id-ü-1", body, KEY, headers))
    async with broker.subscribe(QUEUE, 5) as subscription:
        (arrived,) = await take(subscription, 1)
    assert (arrived.id, arrived.body, arrived.routing_key) == ("id-ü-1", body, KEY)
    assert arrived.headers == headers
    assert {name: type(value) for name, value in arrived.headers.items()} == {
        name: type(value) for name, value in headers.items()
    }
    assert not arrived.redelivered


async def test_an_empty_body_arrives(broker: Broker) -> None:
    await broker.publish(INBOUND, Envelope("empty", b"", KEY))
    async with broker.subscribe(QUEUE, 5) as subscription:
        (arrived,) = await take(subscription, 1)
    assert (arrived.id, arrived.body) == ("empty", b"")


async def test_a_thousand_pipelined_messages_keep_their_order(broker: Broker) -> None:
    async with broker.subscribe(QUEUE, 100) as subscription:
        publishing = asyncio.create_task(publish(broker, range(1000)))
        seen: list[str] = []
        async with asyncio.timeout(30):
            while len(seen) < 1000:
                for one in await subscription.receive():
                    seen.append(one.id)
                    subscription.ack(one)
        await publishing
    assert seen == named(*range(1000))


async def test_many_publishers_at_once_each_keep_their_own_order(broker: Broker) -> None:
    async def publisher(name: int) -> None:
        for step in range(25):
            await broker.publish(INBOUND, Envelope(f"{name}-{step}", b"{}", KEY))

    await asyncio.gather(*(publisher(name) for name in range(40)))
    async with broker.subscribe(QUEUE, 1000) as subscription:
        arrived = ids(await take(subscription, 1000))
    for name in range(40):
        own = [one for one in arrived if one.startswith(f"{name}-")]
        assert own == [f"{name}-{step}" for step in range(25)]


async def test_what_was_acknowledged_does_not_come_again(make_broker: MakeBroker) -> None:
    first = await make_broker()
    await publish(first, range(10))
    async with first.subscribe(QUEUE, 50) as subscription:
        for one in await take(subscription, 10):
            subscription.ack(one)
    await first.close()
    second = await make_broker()
    await publish(second, range(10, 11))
    async with second.subscribe(QUEUE, 50) as subscription:
        assert ids(await take(subscription, 1)) == named(10)


async def test_after_acks_out_of_order_only_the_others_come_again_in_order(make_broker: MakeBroker) -> None:
    first = await make_broker()
    await publish(first, range(10))
    async with first.subscribe(QUEUE, 50) as subscription:
        taken = await take(subscription, 10)
        for number in (7, 2, 0, 1, 5):
            subscription.ack(taken[number])
            if number in (2, 1):
                await subscription.flush()
    await first.close()
    second = await make_broker()
    async with second.subscribe(QUEUE, 50) as subscription:
        again = await take(subscription, 5)
    assert ids(again) == named(3, 4, 6, 8, 9)
    assert all(one.redelivered for one in again)


async def test_the_same_message_may_be_acknowledged_twice(broker: Broker) -> None:
    await publish(broker, range(3))
    async with broker.subscribe(QUEUE, 2) as subscription:
        first, second = await take(subscription, 2)
        for one in (second, second, first, second, first):
            subscription.ack(one)
            await subscription.flush()
        assert ids(await take(subscription, 1)) == named(2)


async def test_the_prefetch_bounds_what_is_in_hand(broker: Broker) -> None:
    await publish(broker, range(10))
    async with broker.subscribe(QUEUE, 3) as subscription:
        taken = await take(subscription, 3)
        more = asyncio.create_task(take(subscription, 1))
        # A round trip to the broker, in which a fourth message would have come along.
        await broker.publish(INBOUND, envelope(10))
        assert not more.done()
        subscription.ack(taken[1])
        assert ids(await more) == named(3)


async def test_one_slow_message_does_not_use_up_the_prefetch(broker: Broker) -> None:
    await publish(broker, range(30))
    async with broker.subscribe(QUEUE, 3) as subscription:
        slow, *others = await take(subscription, 3)
        seen = ids(others)
        while len(seen) < 29:
            for one in others:
                subscription.ack(one)
            others = await take(subscription, min(2, 29 - len(seen)))
            seen += ids(others)
        assert seen == named(*range(1, 30))
        assert slow.id == "m-0"


@pytest.mark.parametrize("seed", range(5))
async def test_a_subscriber_now_behind_and_now_waiting_gets_each_once_and_in_order(
    broker: Broker, seed: int
) -> None:
    chance = random.Random(seed)

    async def publish_in_bursts() -> None:
        number = 0
        while number < 400:
            burst = min(chance.choice((1, 1, 2, 5, 30)), 400 - number)
            await publish(broker, range(number, number + burst))
            number += burst

    seen: list[Envelope] = []
    in_hand: list[Envelope] = []
    async with asyncio.timeout(30), broker.subscribe(QUEUE, 7) as subscription:
        publishing = asyncio.create_task(publish_in_bursts())
        while len(seen) < 400:
            arrived = await subscription.receive()
            seen += arrived
            in_hand += arrived
            assert len(in_hand) <= 7
            for _ in range(chance.randint(1, len(in_hand))):
                subscription.ack(in_hand.pop(chance.randrange(len(in_hand))))
            if chance.random() < 0.3:
                # Written or on its way: then there is nothing to wait for but what comes next.
                await subscription.flush()
        await publishing
    assert ids(seen) == named(*range(400))
    assert not any(one.redelivered for one in seen)


async def test_leaving_gives_back_in_order_to_the_next_who_waits(broker: Broker) -> None:
    await publish(broker, range(6))

    async def successor() -> list[Envelope]:
        async with broker.subscribe(QUEUE, 50) as subscription:
            return await take(subscription, 6)

    async with broker.subscribe(QUEUE, 4) as first:
        taken = await take(first, 4)
        waiting = asyncio.create_task(successor())
        first.ack(taken[1])
        await first.flush()
        await broker.publish(INBOUND, envelope(6))
        assert not waiting.done()
    arrived = await waiting
    assert ids(arrived) == named(0, 2, 3, 4, 5, 6)
    assert [one.redelivered for one in arrived[:3]] == [True, True, True]
    assert [one.redelivered for one in arrived[4:]] == [False, False]


async def test_messages_go_to_the_queue_of_their_partition(broker: Broker) -> None:
    await broker.publish(INBOUND, Envelope("two", b"{}", inbound_key("ch_1", 2)))
    await broker.publish(OUTBOUND, Envelope("three", b"{}", response_key("ch_1", "text", 3)))
    await broker.publish(MESSAGES, Envelope("outside", b"{}", "any.key.at.all"))
    await broker.publish(DEAD, Envelope("dead", b"{}", ""))
    expected = {
        inbound_queue("p02"): "two",
        outbound_queue("p03"): "three",
        MESSAGES: "outside",
        DEAD: "dead",
    }
    for queue, message_id in expected.items():
        async with broker.subscribe(queue, 5) as subscription:
            (arrived,) = await take(subscription, 1)
            assert arrived.id == message_id
            subscription.ack(arrived)


async def test_what_no_queue_wants_is_kept_as_unrouted(broker: Broker) -> None:
    await broker.publish(INBOUND, Envelope("stray", b"{}", inbound_key("ch_1", 77)))
    async with broker.subscribe(UNROUTED, 5) as subscription:
        (arrived,) = await take(subscription, 1)
    assert (arrived.id, arrived.routing_key) == ("stray", inbound_key("ch_1", 77))


async def test_publishing_to_an_exchange_that_is_not_there_is_told_and_harms_nothing(broker: Broker) -> None:
    with pytest.raises(BrokerUnavailable):
        await broker.publish("postbote.nowhere", envelope(0))
    await publish(broker, range(3))
    async with broker.subscribe(QUEUE, 5) as subscription:
        assert ids(await take(subscription, 3)) == named(0, 1, 2)


async def test_the_same_id_published_twice_at_once_comes_twice(broker: Broker) -> None:
    await asyncio.gather(*(broker.publish(INBOUND, envelope(1)) for _ in range(5)))
    async with broker.subscribe(QUEUE, 50) as subscription:
        assert ids(await take(subscription, 5)) == named(1, 1, 1, 1, 1)


async def test_a_message_without_an_id_can_be_passed_on(broker: Broker) -> None:
    await asyncio.gather(*(broker.publish(INBOUND, Envelope("", b"{}", KEY)) for _ in range(3)))
    async with broker.subscribe(QUEUE, 50) as subscription:
        assert len(await take(subscription, 3)) == 3


async def test_cancelled_publishes_leave_order_and_confirms_whole(broker: Broker) -> None:
    for start in range(0, 200, 20):
        sending = [asyncio.create_task(broker.publish(INBOUND, envelope(start + step))) for step in range(20)]
        for _ in range(start // 40):
            await asyncio.sleep(0)
        for step in range(0, 20, 3):
            sending[step].cancel()
        results = await asyncio.gather(*sending, return_exceptions=True)
        uncancelled = [result for step, result in enumerate(results) if step % 3]
        assert uncancelled == [None] * len(uncancelled)
    await broker.publish(INBOUND, envelope(1000))
    arrived: list[str] = []
    async with broker.subscribe(QUEUE, 500) as subscription:
        while "m-1000" not in arrived:
            arrived += ids(list(await subscription.receive()))
    numbers = [int(one.removeprefix("m-")) for one in arrived]
    assert numbers == sorted(set(numbers))
    assert {number for number in range(200) if number % 20 % 3} <= set(numbers)


async def test_a_cancelled_receive_loses_nothing(broker: Broker) -> None:
    async with broker.subscribe(QUEUE, 50) as subscription:
        for number in range(20):
            receiving = asyncio.create_task(take(subscription, 1))
            publishing = asyncio.create_task(broker.publish(INBOUND, envelope(number)))
            for _ in range(number):
                await asyncio.sleep(0)
            if not receiving.done():
                receiving.cancel()
                await publishing
                assert ids(await take(subscription, 1)) == named(number)
            else:
                assert ids(receiving.result()) == named(number)


async def test_closing_ends_whoever_receives(make_broker: MakeBroker) -> None:
    broker = await make_broker()
    async with broker.subscribe(QUEUE, 5) as subscription:
        receiving = asyncio.create_task(subscription.receive())
        await publish(broker, range(1))
        (taken,) = await receiving
        receiving = asyncio.create_task(subscription.receive())
        await asyncio.sleep(0)
        await broker.close()
        with pytest.raises(SubscriptionLost):
            await receiving
        subscription.ack(taken)
        await subscription.flush()
    with pytest.raises(BrokerUnavailable):
        await broker.publish(INBOUND, envelope(1))
    with pytest.raises(BrokerUnavailable):
        await broker.check()


async def test_check_returns_where_messages_are_taken(broker: Broker) -> None:
    await broker.check()


@pytest.mark.parametrize("other", [2, 8])
async def test_another_number_of_partitions_is_refused_with_advice(
    make_broker: MakeBroker, other: int
) -> None:
    first = await make_broker(partitions=4)
    await publish(first, range(1))
    await first.close()
    with pytest.raises(TopologyMismatch, match=r"POSTBOTE_PARTITIONS=4"):
        await make_broker(partitions=other)
    again = await make_broker(partitions=4)
    async with again.subscribe(QUEUE, 5) as subscription:
        assert ids(await take(subscription, 1)) == named(0)
