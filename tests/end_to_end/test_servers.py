"""RabbitMQ and PostgreSQL, several processes of each kind: everything arrives, in order."""

import asyncio
import json

import aio_pika
from deployment import Deployment
from processes import ARRIVAL_S, Receiver, until

from broker.topology import MESSAGES

USERS = [f"user-{number}" for number in range(50)]


async def post_all(deployment: Deployment, channel: str, token: str, each: int) -> None:
    async def one(user: str) -> None:
        for number in range(1, each + 1):
            assert await deployment.api.say(channel, token, user, f"{number}") == 200

    await asyncio.gather(*(one(user) for user in USERS))


def all_in_order(receiver: Receiver, path: str, each: int) -> None:
    for user in USERS:
        assert receiver.first_arrivals(path, user) == list(range(1, each + 1)), user
        assert list(dict.fromkeys(receiver.texts[user])) == [str(n) for n in range(1, each + 1)]
    assert receiver.unsigned == 0


async def test_two_workers_of_each_kind_deliver_everything_once_and_in_order(
    servers: Deployment, receiver: Receiver
) -> None:
    await servers.start("migrate")
    assert await servers.processes[0].finish() == 0, servers.processes[0].output()
    started = await servers.start("api", "bot", "bot", "deliver", "deliver")
    channel, token = await servers.api.channel()
    await servers.api.webhook(channel, receiver, "/hook")
    await post_all(servers, channel, token, 20)
    await until(lambda: receiver.distinct("/hook") == 1000, ARRIVAL_S, "1,000 deliveries")
    all_in_order(receiver, "/hook", 20)
    assert receiver.repeats("/hook") == 0
    for process in started:
        assert await process.stop() == 0, process.output()


async def test_killed_workers_lose_nothing_and_the_others_go_on_in_order(
    servers: Deployment, receiver: Receiver
) -> None:
    await servers.start("migrate")
    await servers.processes[0].finish()
    _, bot, _, deliver, _ = await servers.start("api", "bot", "bot", "deliver", "deliver")
    channel, token = await servers.api.channel()
    await servers.api.webhook(channel, receiver, "/hook")
    posting = asyncio.create_task(post_all(servers, channel, token, 20))
    await until(lambda: receiver.distinct("/hook") > 100, ARRIVAL_S, "the first deliveries")
    await deliver.kill()
    await until(lambda: receiver.distinct("/hook") > 300, ARRIVAL_S, "deliveries after a worker was killed")
    await bot.kill()
    await posting
    await until(lambda: receiver.distinct("/hook") == 1000, ARRIVAL_S, "1,000 deliveries")
    all_in_order(receiver, "/hook", 20)


async def test_messages_published_by_amqp_are_answered_and_rubbish_is_kept_with_its_reason(
    servers: Deployment, receiver: Receiver
) -> None:
    await servers.start("migrate")
    await servers.processes[0].finish()
    await servers.start("api", "bot", "deliver")
    channel, _ = await servers.api.channel()
    await servers.api.webhook(channel, receiver, "/hook")
    good = {"channelId": channel, "user": {"id": "user-0"}, "message": {"textMessage": {"text": "1"}}}
    rubbish = [b"not JSON", b"[]", b"x" * 300_000, json.dumps({**good, "user": {}}).encode()]
    nowhere = json.dumps({**good, "channelId": "nowhere"}).encode()
    connection = await aio_pika.connect(servers.environment["POSTBOTE_AMQP_URL"])
    async with connection:
        amqp_channel = await connection.channel()
        exchange = await amqp_channel.get_exchange("postbote.messages")
        for body in [*rubbish, nowhere]:
            await exchange.publish(aio_pika.Message(body), "")
        for _ in range(2):
            # Twice under one id: answered once.
            message = aio_pika.Message(json.dumps(good).encode(), message_id="order-1")
            await exchange.publish(message, "anything")
        later = json.dumps({**good, "message": {"textMessage": {"text": "2"}}}).encode()
        await exchange.publish(aio_pika.Message(later), "")
    await until(lambda: receiver.distinct("/hook") == 2, ARRIVAL_S, "both answers")
    assert receiver.got["/hook"]["user-0"] == [1, 2]
    assert receiver.texts["user-0"] == ["1", "2"]

    letters: list[dict[str, str]] = []
    async with asyncio.timeout(ARRIVAL_S):
        while len(letters) <= len(rubbish):
            letters = (await servers.api.admin("GET", "/v1/dead-letters"))["items"]  # type: ignore[assignment]
    assert {letter["body"].encode() for letter in letters if letter["stage"] == "intake"} == set(rubbish)
    (unknown,) = [letter for letter in letters if letter["stage"] == "bot"]
    assert unknown["reason"] == "unknown channel"
    assert json.loads(unknown["body"])["channelId"] == "nowhere"
    assert all(letter["reason"] and letter["detail"] for letter in letters)


async def test_migrate_names_the_queues_in_which_an_expired_message_would_be_lost(
    servers: Deployment,
) -> None:
    url = servers.environment["POSTBOTE_AMQP_URL"]
    async with await aio_pika.connect(url) as connection, connection.channel() as channel:
        await channel.declare_queue(
            MESSAGES,
            durable=True,
            arguments={"x-queue-type": "quorum", "x-single-active-consumer": True},
        )
    await servers.start("migrate", "migrate")
    for process in servers.processes:
        assert await process.finish() == 0, process.output()
        lines = [line for line in process.output().splitlines() if "broker.no_dead_letter_exchange" in line]
        assert len(lines) == 1, process.output()
        assert MESSAGES in lines[0]
        assert "postbote.inbound" not in lines[0]


async def test_a_full_queue_of_somebody_elses_holds_up_no_conversation_and_others_read_along(
    servers: Deployment, receiver: Receiver
) -> None:
    await servers.start("migrate")
    await servers.processes[0].finish()
    await servers.start("api", "bot", "deliver")
    channel, token = await servers.api.channel()
    await servers.api.webhook(channel, receiver, "/hook")
    async with (
        await aio_pika.connect(servers.environment["POSTBOTE_AMQP_URL"]) as connection,
        connection.channel() as strangers,
    ):
        full = await strangers.declare_queue(
            "stranger-full", arguments={"x-max-length": 1, "x-overflow": "reject-publish"}
        )
        reader = await strangers.declare_queue("stranger-reader", exclusive=True)
        for queue in (full, reader):
            await queue.bind("postbote.responses", f"response.{channel}.#")
        for number in range(1, 6):
            assert await servers.api.say(channel, token, "user-0", f"{number}") == 200
        await until(lambda: receiver.distinct("/hook") == 5, ARRIVAL_S, "all five")
        async with asyncio.timeout(ARRIVAL_S), reader.iterator(no_ack=True) as copies:
            read = [json.loads((await anext(copies)).body) for _ in range(5)]
        await full.delete(if_empty=False)
    assert receiver.got["/hook"]["user-0"] == [1, 2, 3, 4, 5]
    assert [copy["messageCounter"] for copy in read] == [1, 2, 3, 4, 5]
    assert [copy["message"]["text"] for copy in read] == ["1", "2", "3", "4", "5"]
