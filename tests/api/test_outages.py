"""While the broker or the database cannot take a message, the API says so within two seconds, and recovers by itself.

The processes as a whole, with servers that are gone or silent behind a network, are in tests/end_to_end; a node
that is killed is in tests/faults, on a node whose queues no test deleted.
"""

import asyncio
import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from aiohttp import ClientResponse, ClientSession, TCPConnector
from servers.rabbitmq import NamedNode
from servers.rabbitmq_node import Node
from yarl import URL

from broker.partitions import conversation_key, partition_of, partition_word
from broker.rabbitmq.broker import RabbitBroker
from broker.rabbitmq.publisher import IN_FLIGHT
from broker.topology import Topology, inbound_queue

#: What senders are promised, and what a busy machine adds to the clock of this process, which is client and
#: server in one.
PROMISED_S, CLOCK_S = 2.0, 0.5
#: How long RabbitMQ and our connection to it may take to be there again.
RECOVERY_S = 60.0
#: More than may be on their way at a time, so that some wait for a place too.
CROWD = IN_FLIGHT + 50


@dataclass(frozen=True)
class Fault:
    """Something that keeps RabbitMQ from taking messages, and its end."""

    begin: Callable[[Node], object]
    end: Callable[[Node], object]


def ctl(*words: str) -> Callable[[Node], object]:
    return lambda node: node.ctl(*words)


FAULTS = {
    "memory alarm": Fault(
        ctl("set_vm_memory_high_watermark", "0"), ctl("set_vm_memory_high_watermark", "0.6")
    ),
    "disk alarm": Fault(ctl("set_disk_free_limit", "9000GB"), ctl("set_disk_free_limit", "50MB")),
    "frozen": Fault(lambda node: node.pause(), lambda node: node.resume()),
}


class Sender:
    """Posts messages to one channel, any number at a time, and measures."""

    def __init__(self, session: ClientSession, url: URL, token: str) -> None:
        self._session = session
        self._url = url
        self._headers = {"Authorization": f"Bearer {token}"}

    async def post(self, user: str, key: str | None = None) -> tuple[ClientResponse, float]:
        """Post one; returns the answer and the seconds that it took."""
        body = {"message": {"textMessage": {"text": "hello"}}, "user": {"id": user}}
        headers = self._headers if key is None else {**self._headers, "Idempotency-Key": key}
        began = time.monotonic()
        async with self._session.post(self._url, json=body, headers=headers) as answer:
            await answer.read()
            return answer, time.monotonic() - began

    async def is_taken(self, user: str, key: str | None = None) -> bool:
        """Post one, and tell whether it was taken in."""
        answer, _ = await self.post(user, key)
        return bool(answer.status == 200)

    async def are_refused(self, number: int, user: str, key: str | None = None) -> float:
        """Post many at once, assert that each is told to come again, and return the seconds of the slowest."""
        answers = await asyncio.gather(*(self.post(user, key) for _ in range(number)))
        for answer, _ in answers:
            assert answer.status == 503
            assert answer.headers["Retry-After"] == "1"
            assert answer.content_type == "application/problem+json"
            assert (await answer.json())["status"] == 503
        return max(took_s for _, took_s in answers)


@pytest.fixture
async def session() -> AsyncIterator[ClientSession]:
    # The client's usual limit of connections would have some wait here, and count that as the API's time.
    async with ClientSession(connector=TCPConnector(limit=0)) as opened:
        yield opened


def sender_of(api: Any, channel: dict[str, Any], session: ClientSession) -> Sender:
    """Make a client of the channel."""
    url = api.http.make_url(f"/v1/channels/webhook/{channel['id']}/messages")
    return Sender(session, url, channel["accessToken"])


@pytest.fixture
async def rabbit(amqp_url: str, rabbitmq: Node) -> AsyncIterator[RabbitBroker]:
    if isinstance(rabbitmq, NamedNode):
        pytest.skip("POSTBOTE_TEST_AMQP_URL names a node that the tests do not control")
    broker = RabbitBroker(amqp_url, Topology(2))
    await broker.start()
    yield broker
    await broker.close()


@pytest.mark.parametrize("name", FAULTS)
async def test_what_rabbitmq_cannot_take_is_refused_in_time(
    serve: Any, rabbit: RabbitBroker, rabbitmq: Node, session: ClientSession, name: str
) -> None:
    api, fault = await serve(broker=rabbit), FAULTS[name]
    channel = await api.channel()
    sender = sender_of(api, channel, session)
    assert await sender.is_taken("early")
    await asyncio.to_thread(fault.begin, rabbitmq)
    try:
        # An alarm is told a moment after it was raised, and what is taken until then is taken in earnest.
        async with asyncio.timeout(RECOVERY_S):
            while await sender.is_taken("early"):
                pass
        # So many at once keep this machine busy for longer than is promised.
        await sender.are_refused(CROWD, "ada")
        for _ in range(3):
            assert await sender.are_refused(20, "ada") <= PROMISED_S + CLOCK_S
        began = time.monotonic()
        ready = await api.http.get("/readyz")
        assert (ready.status, (await ready.json())["checks"]["database"]) == (503, "ok")
        assert time.monotonic() - began <= PROMISED_S + CLOCK_S
        assert (await api.call("GET", f"/v1/channels/{channel['id']}")).status == 200
    finally:
        await asyncio.to_thread(fault.end, rabbitmq)
    async with asyncio.timeout(RECOVERY_S):
        while not await sender.is_taken("late"):
            pass
    # All places are free again: none is kept by what was given up.
    answers = await asyncio.gather(*(sender.is_taken(f"user-{each}") for each in range(2 * CROWD)))
    assert all(answers)
    assert (await api.http.get("/readyz")).status == 200


@contextmanager
def locked(path: str) -> Iterator[None]:
    """Hold the one lock for writing on an SQLite file, as a backup that hangs would."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    finally:
        connection.execute("ROLLBACK")
        connection.close()


async def test_a_key_that_cannot_be_written_is_refused_in_time_and_publishes_nothing(
    api: Any, parts: Any, session: ClientSession
) -> None:
    channel = await api.channel()
    sender = sender_of(api, channel, session)
    with locked(parts.settings.database.removeprefix("sqlite:///")):
        assert await sender.are_refused(40, "ada", "order-1") <= PROMISED_S + CLOCK_S
        began = time.monotonic()
        changed = await api.call("PATCH", f"/v1/channels/{channel['id']}", {"name": "Other"})
        assert (changed.status, changed.headers["Retry-After"]) == (503, "1")
        assert time.monotonic() - began <= PROMISED_S + CLOCK_S
        keyless, _ = await sender.post("ada")
        assert keyless.status == 200, "who gives no key needs no database"
    async with asyncio.timeout(RECOVERY_S):
        while not await sender.is_taken("ada", "order-1"):
            pass
    repeat, _ = await sender.post("ada", "order-1")
    ids = [(await answer.json())["id"] for answer in (keyless, repeat, repeat)]
    assert await queued(api, channel["id"], "ada", 3) == ids
    assert (await api.call("PATCH", f"/v1/channels/{channel['id']}", {"name": "Other"})).status == 200


async def queued(api: Any, channel_id: str, user_id: str, number: int) -> list[str]:
    """Take messages from the queue of a conversation's partition until there are so many, and return their ids."""
    word = partition_word(partition_of(conversation_key(channel_id, user_id), 2))
    ids: list[str] = []
    async with asyncio.timeout(10), api.parts.broker.subscribe(inbound_queue(word), 100) as hold:
        while len(ids) < number:
            ids += [envelope.id for envelope in await hold.receive()]
    return ids
