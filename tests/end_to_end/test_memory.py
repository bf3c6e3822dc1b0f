"""Many waiting messages that are as large as they may be: a worker's memory stays bounded, and each is answered."""

import asyncio
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from deployment import Deployment
from processes import ARRIVAL_S, Receiver, until

from broker.embedded.broker import EmbeddedBroker
from broker.models.inbound import InboundMessage, TextMessage, User
from broker.models.records import UserMessage
from broker.partitions import conversation_key, partition_of
from broker.port import Broker, Envelope
from broker.rabbitmq.broker import RabbitBroker
from broker.topology import INBOUND, Topology, inbound_key

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")

PARTITIONS = 16
USERS = 50
LARGE = 240_000
#: compose.yaml gives each process 512 MB.
MOST_MEMORY = 300 * 10**6


class Forgetful(dict[str, list[str]]):
    """Keeps no texts: they would fill the test's own memory."""

    def __missing__(self, user: str) -> list[str]:
        return []


async def publish_large(broker: Broker, channel: str, each: int) -> None:
    """Publish as the API does, each user's messages in order."""
    text = "x" * LARGE

    async def one(user: str) -> None:
        partition = partition_of(conversation_key(channel, user), PARTITIONS)
        for number in range(each):
            message = UserMessage(
                id=f"{user}-{number}",
                channel_id=channel,
                user=User(id=user),
                message=InboundMessage(text_message=TextMessage(text=text)),
            )
            body = message.model_dump_json().encode()
            await broker.publish(INBOUND, Envelope(message.id, body, inbound_key(channel, partition)))

    await asyncio.gather(*(one(f"user-{number}") for number in range(USERS)))


def all_in_order(receiver: Receiver, each: int) -> None:
    for number in range(USERS):
        assert receiver.first_arrivals("/hook", f"user-{number}") == list(range(1, each + 1))


async def dead_letters(deployment: Deployment) -> list[Mapping[str, Any]]:
    found: Any = await deployment.api.admin("GET", "/v1/dead-letters")
    items: list[Mapping[str, Any]] = found["items"]
    return items


async def test_large_messages_that_wait_for_their_workers_take_no_more_memory_than_these_may_have(
    servers: Deployment, receiver: Receiver
) -> None:
    receiver.texts = Forgetful()
    servers.environment["POSTBOTE_PARTITIONS"] = str(PARTITIONS)
    servers.environment["POSTBOTE_SPOOL_DIR"] = str(servers.folder)
    (migration,) = await servers.start("migrate")
    await migration.finish()
    await servers.start("api")
    channel, _ = await servers.api.channel()
    await servers.api.webhook(channel, receiver, "/hook")
    broker = RabbitBroker(servers.environment["POSTBOTE_AMQP_URL"], Topology(PARTITIONS), 30.0)
    await broker.start()
    await publish_large(broker, channel, 10)
    await broker.close()
    workers = await servers.start("bot", "deliver")
    await until(lambda: receiver.distinct("/hook") == USERS * 10, ARRIVAL_S, "all deliveries")
    all_in_order(receiver, 10)
    assert await dead_letters(servers) == []
    for worker in workers:
        assert worker.most_memory() < MOST_MEMORY, worker.command


async def test_large_messages_that_wait_in_the_embedded_queues_take_no_more_memory_than_they_may(
    embedded: Deployment, receiver: Receiver
) -> None:
    receiver.texts = Forgetful()
    embedded.environment["POSTBOTE_PARTITIONS"] = str(PARTITIONS)
    (process,) = await embedded.start("run")
    channel, _ = await embedded.api.channel()
    await embedded.api.webhook(channel, receiver, "/hook")
    await process.stop()
    queues = Path(embedded.environment["POSTBOTE_DATA_DIR"]) / "queues.db"
    broker = EmbeddedBroker(queues, Topology(PARTITIONS))
    await broker.start()
    await publish_large(broker, channel, 4)
    await broker.close()
    (process,) = await embedded.start("run")
    await until(lambda: receiver.distinct("/hook") == USERS * 4, ARRIVAL_S, "all deliveries")
    all_in_order(receiver, 4)
    assert await dead_letters(embedded) == []
    assert process.most_memory() < MOST_MEMORY
