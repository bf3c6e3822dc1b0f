"""Redriving by the API: deliveries wait again, dead letters are published where they came from."""

import asyncio
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from servers.rabbitmq_node import Node

from broker.api import redrive
from broker.errors import BrokerUnavailable
from broker.ids import new_message_id
from broker.models.inbound import InboundMessage, TextMessage, User
from broker.models.records import UserMessage
from broker.partitions import conversation_key, partition_of, partition_word
from broker.port import Envelope, Subscription
from broker.rabbitmq.broker import RabbitBroker
from broker.registry.conversations import Conversations
from broker.registry.records import Attempt, DeadLetter, Delivery
from broker.registry.suspects import Suspects
from broker.registry.waiting_messages import WaitingMessages
from broker.topology import DEAD, MESSAGES, Topology, inbound_key, inbound_queue
from consumers import turns
from consumers.asking import Answering as Shared
from consumers.asking import Bots
from consumers.bot_times import BotTimes
from consumers.bot_worker import BotSession
from consumers.bots.protocol import Reply
from consumers.busyness import Busyness
from consumers.dead_letters import DeadLetterSession
from consumers.message_parking import MessageParking
from consumers.outside import content_encoding
from consumers.trials import Trials
from consumers.turn_writing import Turns

T0 = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
PARTITIONS = 2


def given_up(webhook: dict[str, Any], number: int, **fields: Any) -> Delivery:
    plain = {
        "id": str(uuid4()),
        "webhook_id": webhook["id"],
        "channel_id": webhook["channelId"],
        "conversation_key": f"{webhook['channelId']}/u",
        "user_id": "u",
        "response_id": str(uuid4()),
        "message_counter": number,
        "status": "dead",
        "reason": "the endpoint refused it with 400, 3 times",
        "attempt_count": 3,
        "created_at": T0 + timedelta(minutes=number),
        "finished_at": T0 + timedelta(minutes=number),
        "response": {"message": {"text": "x"}},
        "attempts": tuple(Attempt(n, T0, 5, 400, None, "", "no") for n in (1, 2, 3)),
    }
    return Delivery(**{**plain, **fields})


async def test_a_dead_delivery_waits_again_and_is_shown_with_its_attempts(api: Any) -> None:
    channel = await api.channel()
    webhook = await api.webhook(channel["id"])
    dead = given_up(webhook, 1)
    await api.parts.deliveries.log([dead])
    answer = await api.call("POST", f"/v1/deliveries/{dead.id}/redrive")
    shown = await answer.json()
    assert (answer.status, shown["status"], shown["reason"]) == (200, "pending", None)
    assert (shown["attemptCount"], shown["attemptsBefore"], len(shown["attempts"])) == (3, 3, 3)
    assert shown["redrivenAt"] is not None
    assert shown == await (await api.call("GET", f"/v1/deliveries/{dead.id}")).json()
    again = await api.call("POST", f"/v1/deliveries/{dead.id}/redrive")
    assert again.status == 409
    assert "waits already" in (await again.json())["detail"]


async def test_why_a_delivery_cannot_be_redriven_is_told(api: Any) -> None:
    channel = await api.channel()
    webhook = await api.webhook(channel["id"])
    arrived = given_up(webhook, 1, status="delivered", reason=None)
    orphan = given_up(webhook, 2, webhook_id="wh_gone")
    await api.parts.deliveries.log([arrived, orphan])
    for delivery_id, status, words in (
        (arrived.id, 409, "was made"),
        (orphan.id, 409, "was deleted"),
        ("nobody", 404, "no such delivery"),
    ):
        answer = await api.call("POST", f"/v1/deliveries/{delivery_id}/redrive")
        assert answer.status == status
        assert words in (await answer.json())["detail"]


async def test_a_webhooks_deliveries_wait_again_since_a_time_and_piece_by_piece(
    api: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redrive, "MOST_DELIVERIES", 2)
    channel = await api.channel()
    webhook = await api.webhook(channel["id"])
    await api.parts.deliveries.log([given_up(webhook, n) for n in range(1, 7)])
    path = f"/v1/webhooks/{webhook['id']}/redrive"
    counts, body = [], {"since": "2026-01-02T05:06:05+02:00"}  # of the second on
    while True:
        done = await (await api.call("POST", path, body)).json()
        counts.append(done["redriven"])
        if done["nextCursor"] is None:
            break
        body["cursor"] = done["nextCursor"]
    assert counts == [2, 2, 1]
    page = await (await api.call("GET", f"/v1/channels/{channel['id']}/deliveries?status=dead")).json()
    assert [item["messageCounter"] for item in page["items"]] == [1]
    assert (await api.call("POST", "/v1/webhooks/nobody/redrive", {})).status == 404


@pytest.mark.parametrize(
    "body",
    [
        {"since": "2026-01-01T00:00:00"},
        {"since": "yesterday"},
        {"since": 1767225600},
        {"since": "1767225600"},
        {"since": "9999-12-31T23:59:59-12:00"},
        {"cursor": "nonsense"},
        {"cursor": ""},
        {"sinse": None},
    ],
)
async def test_a_body_that_cannot_be_is_422_and_redrives_nothing(api: Any, body: Any) -> None:
    channel = await api.channel()
    webhook = await api.webhook(channel["id"])
    await api.parts.deliveries.log([dead := given_up(webhook, 1)])
    for path in (f"/v1/webhooks/{webhook['id']}/redrive", "/v1/dead-letters/redrive"):
        answer = await api.call("POST", path, body)
        assert answer.status == 422, await answer.text()
        assert (await answer.json())["errors"][0]["loc"] == [next(iter(body))]
    assert (await api.parts.deliveries.get(dead.id)).status == "dead"


def letter(number: int, stage: str = "intake", **changes: Any) -> DeadLetter:
    plain = {
        "id": f"00000000-0000-0000-0000-{number:012d}",
        "stage": stage,
        "reason": "why",
        "detail": "",
        "channel_id": None,
        "routing_key": f"key.{number}",
        "headers": {"traceparent": "t"},
        "body": f"body {number}".encode(),
        "created_at": T0 + timedelta(minutes=number),
    }
    return DeadLetter(**{**plain, **changes})


async def waiting(api: Any, queue: str) -> list[Envelope]:
    async with api.parts.broker.subscribe(queue, 100) as hold:
        return list(await hold.receive())


async def test_a_dead_letter_is_shown_and_goes_back_as_often_as_is_asked(api: Any) -> None:
    await api.parts.dead_letters.add([one := letter(1)])
    path = f"/v1/dead-letters/{one.id}"
    shown = await (await api.call("GET", path)).json()
    assert (shown["body"], shown["redrivenAt"]) == ("body 1", None)
    first = await (await api.call("POST", path + "/redrive")).json()
    second = await (await api.call("POST", path + "/redrive")).json()
    assert shown["createdAt"] < first["redrivenAt"] < second["redrivenAt"]
    assert await (await api.call("GET", path)).json() == second
    arrived = await waiting(api, MESSAGES)
    # Under one id: the intake makes one message of both.
    assert [(each.id, each.body, each.routing_key) for each in arrived] == [(one.id, b"body 1", "key.1")] * 2
    assert (await api.call("GET", "/v1/dead-letters/nobody")).status == 404
    assert (await api.call("POST", "/v1/dead-letters/nobody/redrive")).status == 404


async def test_a_dead_letter_that_cannot_go_back_says_why_and_stays(api: Any) -> None:
    await api.parts.dead_letters.add([one := letter(1, "elsewhere")])
    answer = await api.call("POST", f"/v1/dead-letters/{one.id}/redrive")
    assert answer.status == 409
    assert "elsewhere" in (await answer.json())["detail"]
    assert (await api.parts.dead_letters.get(one.id)).redriven_at is None


async def test_dead_letters_go_back_oldest_first_and_each_once(
    api: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redrive, "MOST_LETTERS", 2)
    await api.parts.dead_letters.add([letter(1), letter(2, "elsewhere"), letter(3), letter(4), letter(5)])

    async def redrive_all() -> list[tuple[int, int]]:
        done, body = [], {"since": "2026-01-02T03:05:05Z"}
        while True:
            told = await (await api.call("POST", "/v1/dead-letters/redrive", body)).json()
            done.append((told["redriven"], told["refused"]))
            if told["nextCursor"] is None:
                return done
            body["cursor"] = told["nextCursor"]

    assert await redrive_all() == [(1, 1), (2, 0), (1, 0)]
    # The second time there is nothing left but what cannot go back.
    assert await redrive_all() == [(0, 1)]
    assert [each.body for each in await waiting(api, MESSAGES)] == [
        b"body 1",
        b"body 3",
        b"body 4",
        b"body 5",
    ]


async def test_filters_of_dead_letters_hold_for_the_list_and_for_redriving(api: Any) -> None:
    await api.parts.dead_letters.add(
        [letter(1), letter(2, channel_id="ch_a"), letter(3, "broker", channel_id="ch_a")]
    )

    async def listed(query: str) -> list[str]:
        page = await (await api.call("GET", f"/v1/dead-letters?{query}")).json()
        return [item["body"] for item in page["items"]]

    assert await listed("stage=intake") == ["body 2", "body 1"]
    assert await listed("channelId=ch_a") == ["body 3", "body 2"]
    for query in ("stage=%00", "stage=", "channelId=a/b"):
        assert (await api.call("GET", f"/v1/dead-letters?{query}")).status == 400
    told = await (
        await api.call("POST", "/v1/dead-letters/redrive", {"stage": "intake", "channelId": "ch_a"})
    ).json()
    assert told == {"redriven": 1, "refused": 0, "nextCursor": None}
    assert [each.body for each in await waiting(api, MESSAGES)] == [b"body 2"]


async def test_without_a_broker_it_is_503_and_the_letter_is_not_marked(serve: Any, parts: Any) -> None:
    class Away:
        async def publish(self, exchange: str, envelope: Envelope) -> None:
            raise BrokerUnavailable

    api = await serve(broker=Away())
    await parts.dead_letters.add([one := letter(1)])
    for path, body in ((f"/v1/dead-letters/{one.id}/redrive", None), ("/v1/dead-letters/redrive", {})):
        answer = await api.call("POST", path, body)
        assert (answer.status, answer.headers["Retry-After"]) == (503, "1")
    assert (await parts.dead_letters.get(one.id)).redriven_at is None


async def test_the_administrators_token_is_asked_for(api: Any) -> None:
    channel = await api.channel()
    headers = {"Authorization": f"Bearer {channel['accessToken']}"}
    for path in (
        "deliveries/d/redrive",
        "webhooks/w/redrive",
        "dead-letters/l/redrive",
        "dead-letters/redrive",
    ):
        assert (await api.call("POST", f"/v1/{path}", {}, headers=headers)).status == 401


class Bot:
    """Raises until it is told to work."""

    def __init__(self) -> None:
        self.works = False
        self.asked: list[str] = []

    async def reply(self, message: UserMessage, session: Any) -> Reply:
        assert message.message is not None
        assert message.message.text_message is not None
        self.asked.append(message.message.text_message.text)
        if not self.works:
            raise RuntimeError("not today")
        return Reply([{"text": f"you said {self.asked[-1]}"}], session)


class Taken:
    """A hold on a queue that tells when something was acknowledged."""

    def __init__(self, hold: Subscription) -> None:
        self._hold = hold
        self.acked = asyncio.Event()

    def ack(self, envelope: Envelope) -> None:
        self._hold.ack(envelope)
        self.acked.set()


async def test_a_message_that_the_bot_could_not_answer_is_answered_once_after_its_redrive(
    api: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turns, "WAITS_S", ())
    channel, bot, broker = await api.channel(), Bot(), api.parts.broker
    database = api.parts.database
    shared = Shared(
        broker=broker,
        turns=Turns(Conversations(database)),
        bots=Bots(lambda settings: bot, 5),
        parking=MessageParking(WaitingMessages(database)),
        times=BotTimes(),
        trials=Trials(Suspects(database)),
        partitions=PARTITIONS,
        prefetch=10,
        bytes_each=20_000,
        busyness=Busyness(),
    )
    queue = inbound_queue(partition_word(partition_of(conversation_key(channel["id"], "u"), PARTITIONS)))

    async def work(queue: str, open_session: Callable[[Any], Any]) -> None:
        async with broker.subscribe(queue, 10) as hold:
            session = open_session(taken := Taken(hold))
            await session.take(await hold.receive())
            async with asyncio.timeout(10):
                await taken.acked.wait()
            await session.stop(10)

    def answering(hold: Any) -> BotSession:
        return BotSession(hold, shared, 0)

    async def shown() -> list[tuple[str, int]]:
        path = f"/v1/channels/{channel['id']}/conversations/u/turns"
        items = (await (await api.call("GET", path)).json())["items"]
        return [(turn["outcome"], len(turn["responses"])) for turn in items]

    assert (
        await api.post(channel, {"message": {"textMessage": {"text": "hello"}}, "user": {"id": "u"}})
    ).status == 200
    await work(queue, answering)
    await work(DEAD, lambda hold: DeadLetterSession(hold, api.parts.dead_letters))
    assert await shown() == [("failed", 0)]
    path = f"/v1/dead-letters?stage=bot&channelId={channel['id']}"
    (dead,) = (await (await api.call("GET", path)).json())["items"]
    assert "not today" in dead["detail"]

    bot.works = True
    for _ in range(2):
        assert (await api.call("POST", f"/v1/dead-letters/{dead['id']}/redrive")).status == 200
        await work(queue, answering)
    assert await shown() == [("answered", 1)]
    assert bot.asked == ["hello", "hello"]
    await shared.turns.close()


async def test_a_message_goes_to_the_partition_that_it_has_now_under_its_own_id(api: Any) -> None:
    message = UserMessage(
        id=new_message_id(),
        channel_id="ch_a",
        user=User(id="u"),
        message=InboundMessage(text_message=TextMessage(text="hello")),
    )
    body = message.model_dump_json().encode()
    headers = {"x-first-death-queue": "postbote.inbound.p15", "x-delivery-count": 21}
    one = letter(1, "broker", routing_key="message.ch_a.p15", headers=headers, body=body)
    await api.parts.dead_letters.add([one])
    assert (await api.call("POST", f"/v1/dead-letters/{one.id}/redrive")).status == 200
    envelope, arrived = await api.queued("ch_a", "u")
    assert (envelope.id, envelope.headers, arrived) == (message.id, {}, message)
    assert envelope.routing_key == inbound_key("ch_a", partition_of("ch_a/u", PARTITIONS))
    shown = await (await api.call("GET", f"/v1/dead-letters/{one.id}")).json()
    assert (json.loads(shown["body"])["id"], shown["channelId"]) == (message.id, "ch_a")


async def test_a_dead_letter_of_the_intake_goes_back_under_its_sender_s_id_and_packed_as_it_was(
    api: Any,
) -> None:
    headers = {"amqp-message-id": "theirs", "amqp-content-encoding": "gzip", "own": "kept"}
    one = letter(1, "intake", headers=headers, body=b"packed")
    await api.parts.dead_letters.add([one])
    assert (await api.call("POST", f"/v1/dead-letters/{one.id}/redrive")).status == 200
    async with api.parts.broker.subscribe(MESSAGES, 10) as hold:
        (envelope,) = await hold.receive()
    assert (envelope.id, envelope.body, content_encoding(envelope)) == ("theirs", b"packed", "gzip")
    assert envelope.headers["own"] == "kept"


async def test_a_dead_letter_that_no_publish_can_carry_is_redriven_with_less_of_its_headers_or_refused(
    serve: Any, rabbitmq: Node, amqp_url: str
) -> None:
    broker = RabbitBroker(amqp_url, Topology(PARTITIONS))
    limit = "application:set_env(rabbit, max_message_size, {0}), persistent_term:put(max_message_size, {0})."
    await asyncio.to_thread(rabbitmq.ctl, "eval", limit.format(10_000))
    try:
        await broker.start()
        api = await serve(broker=broker)
        filled = letter(1, "intake", headers={"h": "x" * 200_000, "small": "kept"}, body=b"1")
        large, fine = letter(2, "intake", body=b"2" * 10_001), letter(3, "intake", body=b"3")
        await api.parts.dead_letters.add([filled, large, fine])
        told = await (await api.call("POST", "/v1/dead-letters/redrive", {})).json()
        # The first time that RabbitMQ refuses a size, it says which it takes.
        assert (told["redriven"], told["refused"]) == (2, 1)
        answer = await api.call("POST", f"/v1/dead-letters/{large.id}/redrive")
        assert answer.status == 409
        assert "max_message_size" in (await answer.json())["detail"]
        got: list[Envelope] = []
        async with asyncio.timeout(20), broker.subscribe(MESSAGES, 10) as hold:
            while len(got) < 2:
                got += await hold.receive()
        assert [one.body for one in got] == [b"1", b"3"]
        assert got[0].headers["small"] == "kept"
        assert len(str(got[0].headers["h"])) > 100_000
    finally:
        await broker.close()
        await asyncio.to_thread(rabbitmq.ctl, "eval", limit.format(16_777_216))
