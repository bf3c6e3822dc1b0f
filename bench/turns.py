"""How fast a bot worker answers what waits in its queues, beside a bare loop that only moves messages."""

import asyncio
import time
from collections.abc import Mapping
from contextlib import AsyncExitStack
from types import MappingProxyType
from typing import Any

import aio_pika
import asyncpg

from bench.deliveries import FROM, TO, WAIT_S, Measured, run_floor
from bench.deployment import Deployment, deployed
from bench.processes import PROGRAM
from bench.servers import Servers
from broker.ids import new_message_id
from broker.models.acceptance import accept
from broker.models.inbound import MessageRequest
from broker.models.records import UserMessage
from broker.partitions import partition_word
from broker.topology import INBOUND, outbound_queue


async def measure_hop(servers: Servers, messages: int) -> Measured:
    """Measure the bare loop."""
    found = await run_floor("hop", servers.vhost(), str(messages))
    return Measured(found["rate"], {"hop": found["cpu_us"]})


async def measure_turns(
    servers: Servers,
    *,
    messages: int,
    users: int,
    session: Mapping[str, Any] = MappingProxyType({}),
    environment: Mapping[str, str] = MappingProxyType({}),
    program: str = PROGRAM,
) -> Measured:
    """Fill the inbound queues, start one bot worker, and measure until all are answered; checks the turns.

    The first message of each user writes that session.
    """
    async with AsyncExitStack() as stack:
        deployment = await stack.enter_async_context(deployed(servers))
        # The API puts them there, so that they are what they are in earnest.
        sent = make_messages(deployment, messages, users, session)
        await enqueue_all(deployment, sent)
        database = await asyncpg.connect(deployment.settings["POSTBOTE_DATABASE_URL"], timeout=10)
        stack.push_async_callback(database.close)
        await servers.checkpoint()
        child = await deployment.start("bot", environment, program)
        found = await _watch(deployment, database, messages)
        memory = child.memory_mb()
        await deployment.stop()
        await _check(database, sent)
        if await responses_queued(deployment) != messages:
            raise SystemExit("the responses on the queues are not as many as the turns")
        return Measured(found.rate, found.cpu_us, memory)


def make_messages(
    deployment: Deployment, messages: int, users: int, session: Mapping[str, Any] = MappingProxyType({})
) -> list[UserMessage]:
    """Make user messages, a round of all users after the other; the first of each writes that session."""
    made = []
    for number in range(messages):
        body = {
            "message": {"textMessage": {"text": f"message {number}"}},
            "user": {"id": f"user-{number % users}"},
            "sessionData": dict(session) if number < users else {},
        }
        request = MessageRequest.model_validate(body, by_alias=True)
        made.append(
            accept(request, channel_id=deployment.channel.id, message_id=new_message_id(), traceparent=None)
        )
    return made


async def enqueue_all(deployment: Deployment, messages: list[UserMessage]) -> None:
    """Put messages on their queues, in order within each conversation."""
    from broker.api.messages import envelope_of

    lanes: dict[int, list[UserMessage]] = {}
    for message in messages:
        lanes.setdefault(hash(message.user.id) % 200, []).append(message)

    async with deployment.broker() as broker:

        async def one(lane: list[UserMessage]) -> None:
            for message in lane:
                await broker.publish(INBOUND, envelope_of(message, deployment.partitions))

        await asyncio.gather(*map(one, lanes.values()))


async def responses_queued(deployment: Deployment) -> int:
    """Count the responses that wait on the outbound queues."""
    async with await aio_pika.connect(deployment.settings["POSTBOTE_AMQP_URL"]) as connection:
        channel = await connection.channel()
        total = 0
        for partition in range(deployment.partitions):
            queue = await channel.declare_queue(outbound_queue(partition_word(partition)), passive=True)
            total += queue.declaration_result.message_count or 0
        return total


async def _watch(deployment: Deployment, database: asyncpg.Connection, total: int) -> Measured:
    meter = deployment.meter()
    deadline = time.monotonic() + WAIT_S
    begun: tuple[int, float] | None = None
    before = after = meter
    done = 0
    while (count := await database.fetchval("SELECT count(*) FROM turns WHERE published")) < total:
        if begun is None and count >= FROM * total:
            before = meter.read()
            begun = count, before.at
        elif begun is not None and not done and count >= TO * total:
            after, done = meter.read(), count - begun[0]
        if time.monotonic() > deadline:
            raise SystemExit(f"only {count} of {total} messages were answered within {WAIT_S:g} s")
        await asyncio.sleep(0.1)
    if begun is None or not done:
        raise SystemExit(f"{total} messages are too few to measure: they were answered at once")
    return Measured(done / (after.at - before.at), after.since(before, done))


async def _check(database: asyncpg.Connection, sent: list[UserMessage]) -> None:
    rows = await database.fetch(
        "SELECT message_id, conversation_key FROM turns ORDER BY conversation_key, number"
    )
    answered: dict[str, list[str]] = {}
    for row in rows:
        answered.setdefault(row["conversation_key"], []).append(row["message_id"])
    wanted: dict[str, list[str]] = {}
    for message in sent:
        wanted.setdefault(f"{message.channel_id}/{message.user.id}", []).append(message.id)
    if answered != wanted:
        raise SystemExit("messages were lost, repeated, or answered out of order")
