"""What the design leans on when a queue changes hands, on each RabbitMQ: order, who is served first, counts."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial

import aio_pika
import pytest
from aio_pika.abc import AbstractChannel, AbstractIncomingMessage
from servers.rabbitmq_node import Node

from broker.port import Broker, Envelope, Subscription
from broker.rabbitmq.broker import RabbitBroker
from broker.topology import DEAD, INBOUND, Topology, inbound_key, inbound_queue
from consumers.care import CAREFUL_AFTER
from consumers.dead_letters import DETAIL, STAGE
from consumers.health import Health
from consumers.serving import Stop, serve
from consumers.trials import TRIES, Trials

MakeBroker = Callable[..., Awaitable[Broker]]
QUEUE = inbound_queue("p00")
KEY = inbound_key("ch_1", 0)


async def publish(broker: Broker, count: int) -> None:
    await asyncio.gather(
        *(broker.publish(INBOUND, Envelope(f"{number}", b"{}", KEY)) for number in range(count))
    )


async def numbers(subscription: Subscription, count: int) -> list[int]:
    taken: list[int] = []
    async with asyncio.timeout(30):
        while len(taken) < count:
            for envelope in await subscription.receive():
                taken.append(int(envelope.id))
                subscription.ack(envelope)
    return taken


class Consumer:
    """A consumer as any program has one, without our adapter."""

    def __init__(self, channel: AbstractChannel) -> None:
        self.channel = channel
        self.got: asyncio.Queue[AbstractIncomingMessage] = asyncio.Queue()
        self.tag = ""

    async def consume(self, prefetch: int) -> "Consumer":
        await self.channel.set_qos(prefetch)
        queue = await self.channel.get_queue(QUEUE)
        self.tag = await queue.consume(self.got.put)
        return self

    async def take(self, count: int) -> list[int]:
        async with asyncio.timeout(20):
            return [int((await self.got.get()).message_id or "") for _ in range(count)]


@asynccontextmanager
async def plain(node: Node) -> AsyncIterator[Callable[[], Awaitable[Consumer]]]:
    connection = await aio_pika.connect(node.url, timeout=10)
    async with connection:

        async def consumer() -> Consumer:
            return Consumer(await connection.channel())

        yield consumer


async def test_when_a_worker_dies_the_next_begins_at_its_first_open_message_in_order(
    make_rabbit: MakeBroker, node: Node
) -> None:
    dying = RabbitBroker(node.url, Topology(4))
    await dying.start()
    other = await make_rabbit()
    await publish(other, 1000)
    async with asyncio.timeout(60), dying.subscribe(QUEUE, 200) as first:
        taken: list[Envelope] = []
        while len(taken) < 200:
            taken.extend(await first.receive())
        order = [int(envelope.id) for envelope in taken]
        # Some are done, out of order; then the connection goes, as with a process that dies.
        for index in (0, 1, 5, 7, 150):
            first.ack(taken[index])
        await first.flush()
        async with other.subscribe(QUEUE, 200) as second:
            await asyncio.to_thread(node.ctl, "close_all_connections", "test")
            with pytest.raises(Exception, match="ended"):
                await second.receive()
        await dying.close()
    async with other.subscribe(QUEUE, 200) as third:
        again = await numbers(third, 995)
    left = [number for index, number in enumerate(order) if index not in (0, 1, 5, 7, 150)]
    assert again[:195] == left, "what was in hand comes first, in its order"
    assert set(again) | {order[i] for i in (0, 1, 5, 7, 150)} == set(range(1000))


async def test_cancelling_a_consumer_lets_the_next_overtake_and_closing_its_amqp_channel_does_not(
    make_rabbit: MakeBroker, node: Node
) -> None:
    broker = await make_rabbit()
    for number in range(40):
        await broker.publish(INBOUND, Envelope(f"{number}", b"{}", KEY))
    async with plain(node) as consumer:
        closing = await (await consumer()).consume(10)
        assert await closing.take(10) == list(range(10))
        cancelled = await (await consumer()).consume(10)
        await closing.channel.close()
        assert await cancelled.take(10) == list(range(10)), "closed: they come first again"
        third = await (await consumer()).consume(10)
        await (await cancelled.channel.get_queue(QUEUE)).cancel(cancelled.tag)
        assert await third.take(10) == list(range(10, 20)), "cancelled: ten unacknowledged are overtaken"


async def test_who_takes_less_than_the_one_before_changes_the_order(
    make_rabbit: MakeBroker, node: Node
) -> None:
    # What is given back goes behind what was given back before. So all workers have the same prefetch: each
    # takes all that the one before it gave back, and gives it back in one piece.
    broker = await make_rabbit()
    for number in range(20):
        await broker.publish(INBOUND, Envelope(f"{number}", b"{}", KEY))
    async with plain(node) as consumer:
        for prefetch in (10, 10, 10, 5):
            hold = await (await consumer()).consume(prefetch)
            assert await hold.take(prefetch) == list(range(prefetch))
            await hold.channel.close()
        after = await (await consumer()).consume(10)
        assert await after.take(10) == [5, 6, 7, 8, 9, 0, 1, 2, 3, 4]


class Notes:
    """Keeps what was begun, over deaths; the dead write nothing."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.dead = False

    async def begun(self, queue: str, message: str) -> int:
        return self.counts[message]

    async def begin(self, queue: str, message: str) -> int:
        self.counts[message] += 1
        return self.counts[message] - 1

    async def end(self, queue: str, message: str) -> None:
        if not self.dead:
            del self.counts[message]


class Mortal:
    """A session that dies of one message, whenever it is among those in hand."""

    def __init__(self, subscription: Subscription, died: asyncio.Event, done: dict[str, None]) -> None:
        self.failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._subscription = subscription
        self._died = died
        self._done = done

    async def take(self, envelopes: Sequence[Envelope]) -> None:
        if any(envelope.id == "poison" for envelope in envelopes):
            self._died.set()
            await asyncio.get_running_loop().create_future()
        for envelope in envelopes:
            self._done[envelope.id] = None
            self._subscription.ack(envelope)

    async def stop(self, grace_s: float) -> None:
        """Nothing is in flight."""


async def test_a_message_that_kills_its_worker_is_given_up_and_all_others_survive_it(
    make_broker: Callable[..., Awaitable[Broker]],
) -> None:
    broker = await make_broker()
    sent = [f"{number}" for number in range(60)]
    for one in (*sent[:20], "poison", *sent[20:]):
        await broker.publish(INBOUND, Envelope(one, b"{}", KEY))
    done: dict[str, None] = {}
    notes, deaths = Notes(), 0
    while not set(sent) <= set(done):
        died, stop = asyncio.Event(), Stop(0.0)
        opening = partial(Mortal, died=died, done=done)
        serving = asyncio.create_task(serve(broker, QUEUE, 200, opening, stop, Trials(notes), Health()))
        over = asyncio.create_task(died.wait())
        async with asyncio.timeout(60):
            while not over.done() and not set(sent) <= set(done):
                await asyncio.wait({over}, timeout=0.05)
        deaths += over.done()
        over.cancel()
        # What a process that is killed does for the broker: its connection ends, without a word.
        notes.dead = over.done() and not over.cancelled()
        serving.cancel()
        await asyncio.gather(serving, over, return_exceptions=True)
        notes.dead = False
    assert deaths == CAREFUL_AFTER + TRIES
    assert list(done) == sent, "all others, in their order"
    assert not notes.counts
    async with asyncio.timeout(30), broker.subscribe(DEAD, 10) as letters:
        (letter,) = await letters.receive()
    assert letter.headers[STAGE] == "bot"
    assert "probably dies of it" in str(letter.headers[DETAIL])
