"""In hand is bounded by bytes too: large messages wait outside of memory, and come whole and in order."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from pathlib import Path

import pytest

from broker.port import Broker, Envelope, Subscription
from broker.room import LEAST_SHARE, weight
from broker.topology import INBOUND, inbound_key, inbound_queue

MakeBroker = Callable[..., Awaitable[Broker]]
QUEUE = inbound_queue("p00")
KEY = inbound_key("ch_1", 0)
PREFETCH = 200


def body(number: int) -> bytes:
    """Make a body that can be told from others: a large one, now and then a small one."""
    return f"{number} ".encode() * (10 if number % 7 == 0 else 10_000)


async def publish(broker: Broker, count: int) -> None:
    await asyncio.gather(*(broker.publish(INBOUND, Envelope(f"{n}", body(n), KEY)) for n in range(count)))


async def tight(make_broker: MakeBroker, count: int = 60) -> Broker:
    """Make a broker that has as little room as may be, with messages on it."""
    broker = await make_broker(in_hand_bytes=0)
    await publish(broker, count)
    return broker


def whole(envelopes: Sequence[Envelope]) -> bool:
    return all(one.body == body(int(one.id)) for one in envelopes)


def numbers(envelopes: Sequence[Envelope]) -> list[int]:
    return [int(one.id) for one in envelopes]


async def take_all(subscription: Subscription, count: int) -> list[Envelope]:
    taken: list[Envelope] = []
    async with asyncio.timeout(30):
        while len(taken) < count:
            received = await subscription.receive()
            taken += received
            for one in received:
                subscription.ack(one)
    return taken


async def test_what_is_in_hand_never_weighs_more_than_there_is_room_and_all_comes_whole_and_in_order(
    make_broker: MakeBroker,
) -> None:
    broker = await tight(make_broker)
    taken: list[Envelope] = []
    async with asyncio.timeout(60), broker.subscribe(QUEUE, PREFETCH) as subscription:
        while len(taken) < 60:
            in_hand = list(await subscription.receive())
            with suppress(TimeoutError):
                async with asyncio.timeout(0.05):
                    while True:
                        in_hand += await subscription.receive()
            assert len(in_hand) == 1 or sum(weight(one.body) for one in in_hand) <= LEAST_SHARE
            taken += in_hand
            for one in in_hand:
                subscription.ack(one)
    assert numbers(taken) == list(range(60))
    assert whole(taken)


async def test_a_receive_that_is_cancelled_loses_nothing_of_what_waits_outside_of_memory(
    make_broker: MakeBroker,
) -> None:
    broker = await tight(make_broker)
    taken: list[Envelope] = []
    async with asyncio.timeout(60), broker.subscribe(QUEUE, PREFETCH) as subscription:
        for turns in range(400):
            receiving = asyncio.ensure_future(subscription.receive())
            for _ in range(turns % 7):
                await asyncio.sleep(0)
            receiving.cancel()
            with suppress(asyncio.CancelledError):
                received = await receiving
                taken += received
                for one in received:
                    subscription.ack(one)
        taken += await take_all(subscription, 60 - len(taken))
    assert numbers(taken) == list(range(60))
    assert whole(taken)


async def test_what_waits_outside_of_memory_goes_back_in_order_with_the_rest(
    make_broker: MakeBroker,
) -> None:
    broker = await tight(make_broker)
    async with asyncio.timeout(60):
        for begin in (0, 1, 2):
            async with broker.subscribe(QUEUE, PREFETCH) as subscription:
                first = (await subscription.receive())[0]
                assert first.id == f"{begin}"
                subscription.ack(first)
        async with broker.subscribe(QUEUE, PREFETCH) as subscription:
            rest = await take_all(subscription, 57)
    assert numbers(rest) == list(range(3, 60))
    assert whole(rest)


async def test_a_queue_whose_messages_are_all_in_hand_holds_up_no_other(make_broker: MakeBroker) -> None:
    broker = await tight(make_broker)
    other = Envelope("other", b"{}", inbound_key("ch_2", 1))
    async with asyncio.timeout(60):
        async with broker.subscribe(QUEUE, PREFETCH) as stuck:
            await stuck.receive()
            async with broker.subscribe(inbound_queue("p01"), PREFETCH) as subscription:
                await broker.publish(INBOUND, other)
                assert (await subscription.receive())[0].id == "other"


async def test_where_the_disk_takes_nothing_large_messages_wait_on_the_connection_and_come_all_the_same(
    make_rabbit: MakeBroker, tmp_path: Path
) -> None:
    no_folder = tmp_path / "file"
    no_folder.write_bytes(b"")
    broker = await make_rabbit(in_hand_bytes=0, spool_folder=no_folder)
    # More than may wait to be written.
    await publish(broker, 400)
    async with asyncio.timeout(60), broker.subscribe(QUEUE, 400) as subscription:
        taken = await take_all(subscription, 400)
    assert numbers(taken) == list(range(400))
    assert whole(taken)


@pytest.mark.parametrize("size", [3 * 2**20])
async def test_of_a_body_that_nothing_of_ours_can_be_only_the_beginning_is_kept(
    make_rabbit: MakeBroker, size: int
) -> None:
    broker = await make_rabbit()
    await broker.publish(INBOUND, Envelope("huge", b"h" * size, KEY))
    await broker.publish(INBOUND, Envelope("next", b"{}", KEY))
    async with asyncio.timeout(60), broker.subscribe(QUEUE, PREFETCH) as subscription:
        huge, after = await take_all(subscription, 2)
    assert 2**20 <= len(huge.body) < huge.size == size
    assert after.body == b"{}"
