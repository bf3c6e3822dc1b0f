"""Bad input on the queues: what cannot be processed is kept with its reason, and what can be goes on."""

import asyncio
import json
import os
import signal
from collections import Counter
from uuid import uuid4

import aio_pika
import pytest
from behaviours import delayed
from receivers import Delivery, Exchange, Receiver, opened
from servers.raw_publisher import UNREADABLE, field, raw_publisher, table, text
from stage import Stage

from broker.models.records import BotResponse, UserMessage
from broker.partitions import conversation_key, partition_of
from broker.topology import INBOUND, MESSAGES, OUTBOUND, inbound_key, response_key

MEGABYTES_10 = b'{"text":"' + b"x" * (10 * 1024 * 1024) + b'"}'
#: Headers that no client library decodes, and such as leave no room in a frame for what a dead letter says.
HOSTILE = [*UNREADABLE, table(field(b"h", text(b"x" * 130_900)))]
#: A worker that a message kills is started again this often at the most, before the message is given up.
MOST_LIVES = 40


def queued(channel_id: str, user: str, text: str) -> dict[str, object]:
    """Write a message as outside programs do."""
    return {"channelId": channel_id, "user": {"id": user}, "message": {"textMessage": {"text": text}}}


def rubbish() -> list[bytes]:
    """List bodies that are no message of any kind."""
    return [
        b"",
        b"not JSON",
        b"\xff\xfe\x00",
        b"[]",
        b"null",
        b"{}",
        b"[" * 100_000,
        json.dumps({"schemaVersion": 99, "id": "1"}).encode(),
        MEGABYTES_10,
    ]


class Outside:
    """A program that publishes whatever it likes, where it likes."""

    def __init__(self, channel: aio_pika.abc.AbstractChannel) -> None:
        self._channel = channel
        self.bad = 0

    async def publish(
        self, exchange: str, body: bytes, key: str = "", *, times: int = 1, **properties: object
    ) -> None:
        """Publish a body; properties are aio_pika's."""
        found = await self._channel.get_exchange(exchange, ensure=False)
        for _ in range(times):
            message = aio_pika.Message(body, **properties)  # type: ignore[arg-type]
            await found.publish(message, key, timeout=30)


async def letters_of(stage: Stage, wanted: int, within_s: float = 30.0) -> list[dict[str, str]]:
    """Read the dead letters once there are so many."""
    found: list[dict[str, str]] = []
    async with asyncio.timeout(within_s):
        while len(found) < wanted:
            page = await stage.api.admin("GET", "/v1/dead-letters?limit=200")
            assert isinstance(page["items"], list)
            found = page["items"]
            await asyncio.sleep(0.1)
    return found


async def test_rubbish_on_every_queue_is_kept_with_its_reason_and_holds_up_nobody(stage: Stage) -> None:
    one = Receiver("one")
    async with opened(one):
        workers = await stage.start_all("api", "bot", "deliver")
        channel = await stage.channel(one)
        doomed, _ = await stage.api.channel()
        await stage.api.admin("POST", f"/v1/channels/{doomed}/webhooks", {"url": one.url})
        load = stage.load(rate=60.0, users=60)
        connection = await aio_pika.connect(stage.environment["POSTBOTE_AMQP_URL"], timeout=10)
        async with connection, load.flowing():
            outside = Outside(await connection.channel())
            await stage.arrivals(load, 20)
            async with stage.session.delete(
                f"{stage.bases[0]}/v1/channels/{doomed}",
                headers={"Authorization": f"Bearer {stage.environment['POSTBOTE_ADMIN_TOKEN']}"},
            ) as answer:
                assert answer.status == 204
            bad = await publish_all_kinds_of_rubbish(outside, doomed)
            bad += await publish_under_hostile_headers(stage, channel.id, doomed)
            # Twice under one id, by two ways of giving one: answered once each.
            twice = queued(channel.id, "amqp-user", "said twice")
            await outside.publish(MESSAGES, json.dumps(twice).encode(), times=2, message_id="one-id")
            await outside.publish(MESSAGES, json.dumps({**twice, "id": "other-id"}).encode(), times=2)
            # Without any property at all.
            await outside.publish(MESSAGES, json.dumps(queued(channel.id, "amqp-user", "bare")).encode())
            letters = await letters_of(stage, bad)
            await stage.arrivals(load, 50)
        assert await stage.wait_for(lambda: counters(one, "amqp-user") == [1, 2, 3], 20.0)
        assert await stage.wait_for(
            lambda: counters(one, "odd-user") == list(range(1, 1 + len(HOSTILE))), 20.0
        )
        one.forget("amqp-user")
        one.forget("odd-user")
        await stage.judge("bad input on every queue", load, most_repeated=0, notes={"dead letters": bad})
        assert len(letters) == bad
        assert all(letter["reason"] and letter["stage"] for letter in letters)
        stages = Counter(letter["stage"] for letter in letters)
        assert set(stages) == {"intake", "bot", "delivery"}
        assert sum(letter["reason"] == "unknown channel" for letter in letters) == 4
        assert all(worker.running for worker in workers)
        assert all(worker.memory_mb < 300 for worker in workers)


async def publish_all_kinds_of_rubbish(outside: Outside, doomed: str) -> int:
    """Publish what has to become a dead letter; returns how many."""
    user = "nobody"
    partition = partition_of(conversation_key(doomed, user), 8)
    places = (
        (MESSAGES, "anything"),
        (INBOUND, inbound_key(doomed, partition)),
        (OUTBOUND, response_key(doomed, "text", partition)),
    )
    bad = 0
    for exchange, key in places:
        for body in rubbish():
            await outside.publish(exchange, body, key)
            bad += 1
    # Well-formed, for a channel that was deleted, and for one that never was.
    for channel_id in (doomed, "nowhere"):
        message = UserMessage.model_validate(
            {
                "id": str(uuid4()),
                "channelId": channel_id,
                "user": {"id": user},
                "message": {"textMessage": {"text": "?"}},
            }
        )
        await outside.publish(INBOUND, message.model_dump_json().encode(), inbound_key(channel_id, partition))
        response = BotResponse.model_validate(
            {
                "id": str(uuid4()),
                "channelId": channel_id,
                "userId": user,
                "inReplyTo": str(uuid4()),
                "index": 1,
                "count": 1,
                "messageCounter": 1,
                "kind": "text",
                "message": {"text": "?"},
            }
        )
        key = response_key(channel_id, "text", partition)
        # The same one twice, as a worker that died between publishing and acknowledging would.
        await outside.publish(OUTBOUND, response.model_dump_json().encode(), key)
        bad += 2
    return bad


async def publish_under_hostile_headers(stage: Stage, channel_id: str, doomed: str) -> int:
    """Publish rubbish on every queue, and messages of a user, under headers that no library reads; returns how many
    have to become dead letters."""
    partition = partition_of(conversation_key(doomed, "nobody"), 8)
    places = (
        (MESSAGES, "anything"),
        (INBOUND, inbound_key(doomed, partition)),
        (OUTBOUND, response_key(doomed, "text", partition)),
    )
    async with raw_publisher(stage.environment["POSTBOTE_AMQP_URL"]) as stranger:
        for properties in HOSTILE:
            for exchange, key in places:
                await stranger.publish(exchange, b"not JSON", properties, key)
            said = json.dumps(queued(channel_id, "odd-user", "heard all the same")).encode()
            await stranger.publish(MESSAGES, said, properties)
    return len(HOSTILE) * len(places)


def counters(receiver: Receiver, user: str) -> list[int]:
    """Return what a receiver accepted for a user."""
    return [arrival.counter for arrival in receiver.arrivals if arrival.user == user and arrival.accepted]


async def test_responses_that_are_published_twice_arrive_once(stage: Stage) -> None:
    one = Receiver("one")
    async with opened(one):
        await stage.start_all("api", "bot", "deliver")
        channel = await stage.channel(one)
        partition = partition_of(conversation_key(channel.id, "user"), 8)
        key = response_key(channel.id, "text", partition)
        connection = await aio_pika.connect(stage.environment["POSTBOTE_AMQP_URL"], timeout=10)
        async with connection:
            outside = Outside(await connection.channel())
            for counter in (1, 2, 3):
                response = BotResponse.model_validate(
                    {
                        "id": f"response-{counter}",
                        "channelId": channel.id,
                        "userId": "user",
                        "inReplyTo": "message",
                        "index": 1,
                        "count": 1,
                        "messageCounter": counter,
                        "kind": "text",
                        "message": {"text": "?"},
                    }
                )
                await outside.publish(OUTBOUND, response.model_dump_json().encode(), key, times=2)
            await stage.wait_for(lambda: 3 in counters(one, "user"), 20.0)
        assert counters(one, "user") == [1, 2, 3]


@pytest.mark.long
@pytest.mark.timeout(300)
async def test_messages_of_a_channel_that_is_deleted_meanwhile_are_kept_with_their_reason(
    stage: Stage,
) -> None:
    one, other = Receiver("one"), Receiver("other")
    async with opened(one, other):
        _, _, deliver = await stage.start_all("api", "bot", "deliver")
        channel = await stage.channel(one)
        doomed, token = await stage.api.channel()
        await stage.api.admin("POST", f"/v1/channels/{doomed}/webhooks", {"url": other.url})
        load = stage.load(rate=60.0, users=60)
        async with load.flowing():
            await stage.arrivals(load, 20)
            deliver.freeze()
            for number in range(50):
                assert await stage.api.say(doomed, token, f"user-{number % 5}", str(number)) == 200
            # The bot has answered them all once the last has its turn.
            async with asyncio.timeout(20.0):
                while True:
                    page = await stage.api.admin(
                        "GET", f"/v1/channels/{doomed}/conversations/user-4/responses?limit=20"
                    )
                    if page["nextAfter"] == 10:
                        break
                    await asyncio.sleep(0.1)
            async with stage.session.delete(
                f"{stage.bases[0]}/v1/channels/{doomed}",
                headers={"Authorization": f"Bearer {stage.environment['POSTBOTE_ADMIN_TOKEN']}"},
            ) as answer:
                assert answer.status == 204
            deliver.thaw()
            letters = await letters_of(stage, 50)
            await stage.arrivals(load, 50)
        assert len(letters) == 50
        assert {letter["reason"] for letter in letters} == {"unknown channel"}
        assert other.requests == 0
        await stage.judge("a channel deleted with 50 responses on the queues", load, most_repeated=0)
        assert load.channels == stage.channels == [channel]


@pytest.mark.long
@pytest.mark.timeout(300)
async def test_a_message_that_kills_its_worker_every_time_is_given_up_and_its_partition_goes_on(
    stage: Stage,
) -> None:
    deadly, fine = Receiver("deadly"), Receiver("fine")
    fine.behaviour = delayed(0.01)
    async with opened(deadly, fine):
        _, _, deliver = await stage.start_all("api", "bot", "deliver")
        channel = await stage.channel(fine)
        subscriber = await stage.webhook(channel, deadly, broken=True)

        async def kill(delivery: Delivery, exchange: Exchange) -> None:
            exchange.note(accepted=delivery.text != "poison")
            if delivery.text != "poison":
                exchange.answer(200)
                return
            os.kill(deliver.pid, signal.SIGKILL)

        deadly.behaviour = kill
        load = stage.load(rate=20.0, users=40)
        poisoned: list[str] = []

        def script(user: str, number: int) -> str | None:
            if number == 2 and not poisoned:
                poisoned.append(user)
                return "poison"
            return None

        load.script = script
        lives = 0
        async with load.flowing():
            assert await stage.wait_for(lambda: not deliver.running, 30.0), "the poison never came"
            while lives < MOST_LIVES:
                lives += 1
                with stage.strike("killed by a message"):
                    await deliver.start()
                    died = await stage.wait_for(lambda: not deliver.running, 6.0)
                if not died:
                    break
            await stage.arrivals(load, 50)
        assert lives < MOST_LIVES, f"{lives} workers died of one message"
        statuses = await stage.statuses()
        letters = (await stage.api.admin("GET", "/v1/dead-letters?limit=200"))["items"]
        assert isinstance(letters, list)
        await stage.judge(
            "a message that kills its worker every time",
            load,
            spared=("poison",),
            most_repeated=stage.most_in_flight(lives),
            notes={"workers killed": lives},
        )
        assert statuses.get("deadly dead", 0) + len(letters) == 1, (statuses, letters)
        assert subscriber.receiver.distinct > 0
