"""What strangers publish on RabbitMQ ends no connection, holds up nobody, and is not lost without trace."""

import asyncio
import gzip
import json
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import aio_pika
import pytest
from servers.rabbitmq_node import Node
from servers.raw_publisher import UNREADABLE, field, raw_publisher, table, text

from broker.errors import Unpublishable
from broker.models.records import UserMessage
from broker.port import DEATH_QUEUE, Broker, Envelope, Subscription
from broker.rabbitmq.broker import RabbitBroker
from broker.registry.database import Database
from broker.registry.dead_letters import DeadLetters
from broker.registry.records import DeadLetter
from broker.topology import CONTROL, DEAD, INBOUND, MESSAGES, Topology, inbound_key, inbound_queue
from consumers.dead_letters import DeadLetterSession
from consumers.health import Health
from consumers.intake import IntakeSession
from consumers.serving import Session, Stop, serve
from consumers.trials import Trials

MakeBroker = Callable[..., Awaitable[Broker]]
QUEUE, KEY = inbound_queue("p00"), inbound_key("ch_1", 0)
#: Sets what a running node takes, on RabbitMQ 3 and on 4.
LIMIT = "application:set_env(rabbit, max_message_size, {0}), persistent_term:put(max_message_size, {0})."


async def take(subscription: Subscription, count: int) -> list[Envelope]:
    """Receive until there are `count` messages."""
    taken: list[Envelope] = []
    async with asyncio.timeout(30):
        while len(taken) < count:
            taken.extend(await subscription.receive())
    return taken


async def test_headers_that_cannot_be_decoded_end_no_connection_however_often_they_come(
    make_rabbit: MakeBroker, node: Node
) -> None:
    broker = await make_rabbit()
    sent = [b'{"number":%d}' % number for number in range(len(UNREADABLE))]
    async with raw_publisher(node.url) as stranger:
        for body, properties in zip(sent, UNREADABLE, strict=True):
            await stranger.publish(MESSAGES, body, properties)
    async with broker.subscribe(QUEUE, 5) as neighbour:
        # Delivered again RabbitMQ writes its count among them.
        for time in range(3):
            async with broker.subscribe(MESSAGES, 50) as subscription:
                taken = await take(subscription, len(sent))
            assert [one.body for one in taken] == sent
            assert all(len(dict(one.headers)) <= 1_000 for one in taken)
            assert [one.returned for one in taken[:-1]] == [time] * (len(sent) - 1)
        await broker.publish(INBOUND, Envelope("m", b"{}", KEY))
        assert [one.id for one in await take(neighbour, 1)] == ["m"], "on the connection that there was"


async def test_headers_that_cannot_be_decoded_among_announcements_end_no_connection(
    make_rabbit: MakeBroker, node: Node
) -> None:
    broker = await make_rabbit()
    async with broker.subscribe(QUEUE, 5) as neighbour, broker.listen() as listener:
        async with raw_publisher(node.url) as stranger:
            for properties in UNREADABLE:
                await stranger.publish(CONTROL, b"?", properties)
        await broker.announce(b"heard")
        async with asyncio.timeout(20):
            while await listener.receive() != b"heard":
                pass
        await broker.publish(INBOUND, Envelope("m", b"{}", KEY))
        assert [one.id for one in await take(neighbour, 1)] == ["m"]


async def test_a_forged_count_of_deliveries_is_not_believed(make_rabbit: MakeBroker, node: Node) -> None:
    broker = await make_rabbit()
    async with raw_publisher(node.url) as stranger:
        forged = field(b"x-delivery-count", b"l" + struct.pack(">q", 40))
        await stranger.publish(MESSAGES, b"{}", table(forged, forged))
    for wanted in (0, 1, 2):
        async with broker.subscribe(MESSAGES, 5) as subscription:
            assert [one.returned for one in await take(subscription, 1)] == [wanted]


async def test_what_no_publish_can_carry_is_refused_as_such_and_harms_no_other(broker: Broker) -> None:
    hopeless = [
        Envelope("m\ud800", b"{}", KEY),
        Envelope("m", b"{}", KEY, {"h": "\ud800"}),
        Envelope("m", b"{}", KEY, {"h\ud800": 1}),
    ]
    if isinstance(broker, RabbitBroker):
        hopeless += [
            Envelope("m", b"{}", KEY, {"h": "x" * 131_072}),
            Envelope("m", b"{}", f"{'k' * 255}.p00"),
            Envelope("m" * 256, b"{}", KEY),
        ]
    publishes = [broker.publish(INBOUND, one) for one in (*hopeless, Envelope("fine", b"{}", KEY))]
    results = await asyncio.gather(*publishes, return_exceptions=True)
    assert [type(result) for result in results] == [Unpublishable] * len(hopeless) + [type(None)]
    async with broker.subscribe(QUEUE, 5) as subscription:
        assert [one.id for one in await take(subscription, 1)] == ["fine"]


@asynccontextmanager
async def at_work(broker: Broker, database_url: str) -> AsyncIterator[DeadLetters]:
    """Run the intake and the collector of dead letters; returns where those are kept."""
    database, stop = Database(database_url), Stop(0.5)
    store = DeadLetters(database)

    def collector(subscription: Subscription) -> Session:
        return DeadLetterSession(subscription, store)

    def intake(subscription: Subscription) -> Session:
        return IntakeSession(subscription, broker, 4)

    working = [
        asyncio.create_task(serve(broker, queue, 50, session, stop, NO_TRIALS, Health()))
        for queue, session in ((MESSAGES, intake), (DEAD, collector))
    ]
    try:
        yield store
    finally:
        stop.set()
        await asyncio.gather(*working)
        await database.close()


class _NoSuspects:
    async def begun(self, queue: str, message: str) -> int:
        raise AssertionError("nothing here is begun alone")

    begin = end = begun


NO_TRIALS = Trials(_NoSuspects())  # type: ignore[arg-type]


async def kept(store: DeadLetters, wanted: int) -> list[DeadLetter]:
    """Read the dead letters once there are so many, oldest first."""
    async with asyncio.timeout(40):
        while len(found := (await store.page(None, 100)).items) < wanted:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    return list(found[::-1])


async def answered(broker: Broker, count: int) -> list[UserMessage]:
    """Take what the intake forwarded, whichever the partition."""
    found: list[UserMessage] = []

    async def look(queue: str) -> None:
        async with broker.subscribe(queue, 50) as subscription:
            while True:
                for envelope in await subscription.receive():
                    found.append(UserMessage.model_validate_json(envelope.body))
                    subscription.ack(envelope)

    looking = [asyncio.create_task(look(inbound_queue(f"p0{number}"))) for number in range(4)]
    try:
        async with asyncio.timeout(30):
            while len(found) < count:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
    finally:
        for one in looking:
            one.cancel()
        await asyncio.gather(*looking, return_exceptions=True)
    return found


def queued(said: str, **more: Any) -> bytes:
    """Write a message as outside programs do."""
    return json.dumps(
        {"channelId": "ch_1", "user": {"id": "u"}, "message": {"textMessage": {"text": said}}, **more}
    ).encode()


async def test_burying_a_message_whose_headers_fill_a_frame_goes_on_with_the_next(
    make_rabbit: MakeBroker, node: Node, sqlite_url: str
) -> None:
    broker = await make_rabbit()
    full = [
        table(field(b"h", text(b"x" * 130_900))),
        table(*(field(b"%05d" % number, text(b"x" * 100)) for number in range(1_160))),
        table(field(b"h", text(b"\xff" * 60_000)), field(b"small", text(b"whole"))),
        *UNREADABLE,
    ]
    async with at_work(broker, sqlite_url) as store:
        async with raw_publisher(node.url) as stranger:
            for properties in full:
                await stranger.publish(MESSAGES, b"not json", properties)
            await stranger.publish(MESSAGES, queued("next"), full[0])
        letters = await kept(store, len(full))
        (forwarded,) = await answered(broker, 1)
    assert forwarded.message is not None
    assert forwarded.message.text_message is not None
    assert forwarded.message.text_message.text == "next"
    assert {(one.stage, one.reason, one.body) for one in letters} == {
        ("intake", "not a valid message", b"not json")
    }
    first, second, third = letters[:3]
    assert "headers were cut" in second.detail
    assert "headers were cut" in first.detail
    assert set(str(first.headers["h"])) == {"x"}
    assert len(str(first.headers["h"])) > 100_000
    assert third.headers["small"] == "whole"
    assert "headers were cut" in third.detail


async def test_burying_a_body_beyond_what_the_broker_takes_by_now_goes_on_with_the_next(
    make_rabbit: MakeBroker, node: Node, sqlite_url: str
) -> None:
    broker = await make_rabbit()
    async with raw_publisher(node.url) as stranger:
        await stranger.publish(MESSAGES, b"x" * 400_000, table(field(b"h", text(b"h" * 130_900))))
        # What the intake makes of it is a little larger than what it was.
        await stranger.publish(MESSAGES, queued("x" * 99_900), struct.pack(">H", 0))
        await stranger.publish(MESSAGES, queued("next"), struct.pack(">H", 0))
    await asyncio.to_thread(node.ctl, "eval", LIMIT.format(100_000))
    try:
        async with at_work(broker, sqlite_url) as store:
            letter, grown = await kept(store, 2)
            assert len(await answered(broker, 1)) == 1
        assert letter.body == b"x" * 100_000
        assert "of its body of 400,000 bytes only the beginning was kept" in letter.detail
        assert "headers were cut" in letter.detail
        assert (grown.stage, grown.reason, grown.channel_id) == ("intake", "too large for the broker", "ch_1")
        with pytest.raises(Unpublishable, match="max_message_size"):
            await broker.publish(INBOUND, Envelope("m", b"x" * 100_001, KEY))
    finally:
        await asyncio.to_thread(node.ctl, "eval", LIMIT.format(16_777_216))


async def test_dead_letters_of_the_intake_say_whose_they_are_and_what_stood_beside_them(
    make_rabbit: MakeBroker, node: Node, sqlite_url: str
) -> None:
    broker = await make_rabbit()
    packed = gzip.compress(queued("packed"))
    bad = [
        (json.dumps({"channelId": "ch_1"}).encode(), None),
        (gzip.compress(json.dumps({"channelId": "ch_1", "n": 1}).encode()), "gzip"),
        (b'{"channelId": "ch_1", "user": {', None),
        (b'{"channelId": "ch_1", "long": "' + b"x" * 300_000 + b'"}', None),
        (gzip.compress(b'{"channelId": "ch_1", "x": "' + b"x" * 50_000_000 + b'"}'), "gzip"),
        (packed[:-9], "gzip"),
        (packed, None),
        (b"\x0b\x02\x80", "br"),
        (queued("two bytes a letter").decode().encode("utf-16"), None),
    ]
    good = [
        (packed, "gzip"),
        (b"\xef\xbb\xbf" + queued("marked"), None),
        (queued("named"), "utf-8"),
    ]
    async with at_work(broker, sqlite_url) as store:
        async with await aio_pika.connect(node.url) as connection, connection.channel() as channel:
            exchange = await channel.get_exchange(MESSAGES)
            for number, (body, encoding) in enumerate([*bad, *good]):
                message = aio_pika.Message(
                    body,
                    content_type="application/json",
                    content_encoding=encoding,
                    app_id="shop",
                    message_id=f"id-{number}",
                )
                await exchange.publish(message, "k")
        letters = await kept(store, len(bad))
        forwarded = await answered(broker, len(good))
    messages = [one.message for one in forwarded if one.message is not None]
    said = {message.text_message.text for message in messages if message.text_message}
    assert said == {"packed", "marked", "named"}
    assert [one.body for one in letters] == [body for body, _ in bad]
    assert [one.channel_id for one in letters] == ["ch_1"] * 6 + [None] * 3
    for number, (letter, (_, encoding)) in enumerate(zip(letters, bad, strict=True)):
        properties = {"amqp-message-id": f"id-{number}", "amqp-app-id": "shop"}
        properties["amqp-content-type"] = "application/json"
        if encoding is not None:
            properties["amqp-content-encoding"] = encoding
        assert letter.headers == properties
    for letter, told in zip(letters[4:], ["unpacked", "ends early", "gzip", "'br'", "UTF-16"], strict=True):
        assert told in letter.detail


async def test_what_expires_or_is_given_up_by_the_broker_is_kept_where_no_policy_was_set(
    make_rabbit: MakeBroker, node: Node, sqlite_url: str
) -> None:
    broker = await make_rabbit()
    async with await aio_pika.connect(node.url) as connection, connection.channel() as channel:
        exchange = await channel.get_exchange(MESSAGES)
        for number in range(2):
            message = aio_pika.Message(
                queued(str(number)),
                expiration=0.001,
                message_id="the same",
                # As if another stage had given it up, so that a redrive would take it there.
                headers={
                    "postbote-dead-stage": "delivery",
                    "x-last-death-queue": "postbote.outbound.p00",
                    "x-first-death-queue": "postbote.outbound.p00",
                },
            )
            await exchange.publish(message, "k")
    async with broker.subscribe(DEAD, 5) as subscription:
        await take(subscription, 2)
    async with at_work(broker, sqlite_url) as store:
        letters = await kept(store, 2)
    assert {one.body for one in letters} == {queued("0"), queued("1")}
    for one in letters:
        assert (one.stage, one.reason, one.channel_id) == ("broker", "expired", "ch_1")
        assert one.headers[DEATH_QUEUE] == MESSAGES


async def test_queues_without_a_dead_letter_exchange_are_worked_with_and_named(
    make_rabbit: MakeBroker, node: Node
) -> None:
    async with await aio_pika.connect(node.url) as connection, connection.channel() as channel:
        arguments: Any = {"x-queue-type": "quorum", "x-single-active-consumer": True}
        await channel.declare_queue(MESSAGES, durable=True, arguments=arguments)
    broker = RabbitBroker(node.url, Topology(4))
    try:
        await broker.start()
        assert await broker.without_dead_letters() == [MESSAGES]
    finally:
        await broker.close()


class Refusing:
    """A database that refuses what holds a word, as long as it is a fault of its own or not."""

    def __init__(self, store: DeadLetters, refuses: Callable[[DeadLetter], bool]) -> None:
        self._store = store
        self._refuses = refuses

    async def add(self, letters: Sequence[DeadLetter]) -> None:
        """Keep them."""
        if any(map(self._refuses, letters)):
            raise ValueError("a value out of its range")
        await self._store.add(letters)


@pytest.mark.parametrize("part", ["headers", "body"])
async def test_a_dead_letter_that_the_database_refuses_is_kept_with_less_and_keeps_no_other_out(
    make_broker: MakeBroker, sqlite_url: str, part: str
) -> None:
    broker, database = await make_broker(), Database(sqlite_url)
    store = DeadLetters(database)
    for number in range(3):
        bad = number == 1
        headers = {"postbote-dead-stage": "intake", "h": "bad" if bad else "fine"}
        await broker.publish(DEAD, Envelope("", b"bad" if bad else b"fine", "dead.intake", headers))

    def refuses(one: DeadLetter) -> bool:
        return one.headers.get("h") == "bad" if part == "headers" else one.body == b"bad"

    stop = Stop(0.5)
    opening = partial(DeadLetterSession, store=Refusing(store, refuses))
    working = asyncio.create_task(serve(broker, DEAD, 50, opening, stop, NO_TRIALS, Health()))
    try:
        letters = await kept(store, 3)
    finally:
        stop.set()
        await working
        await database.close()
    assert [one.body for one in letters] == [b"fine", b"bad" if part == "headers" else b"", b"fine"]
    assert "the database refused its headers" in letters[1].detail
    assert letters[0].headers == letters[2].headers == {"h": "fine"}
