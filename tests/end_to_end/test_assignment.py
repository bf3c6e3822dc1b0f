"""Workers share the partitions: one joins, one leaves, one is killed, and the messages go on."""

import asyncio
import re
import time

import aio_pika
from deployment import Deployment
from processes import Process, Receiver, until

from broker.partitions import partition_word
from broker.topology import outbound_queue

#: What operators are told: a joiner has its share after 2 s, a killed one's is served after 10 s. A busy machine
#: may add a second.
JOINED_S, TAKEN_OVER_S, A_SECOND = 2.0, 10.0, 1.0
ALL = {0, 1, 2, 3}
USERS = [f"user-{number}" for number in range(40)]


def share(process: Process) -> set[int]:
    """Return the partitions that a worker last said are its share; none where it said nothing yet."""
    told = re.findall(r"assignment\.changed.*?partitions=\[([\d, ]*)\]", process.output())
    return {int(word) for word in told[-1].split(",") if word.strip()} if told else set()


def halved(one: Process, other: Process) -> bool:
    """Tell whether two workers say that each has a half."""
    return len(share(one)) == len(share(other)) == 2 and share(one) | share(other) == ALL


async def consumers(amqp_url: str) -> list[int]:
    """Ask the broker how many hold each partition's queue, or wait for it."""
    async with await aio_pika.connect(amqp_url) as connection, connection.channel() as channel:
        queues = [
            await channel.declare_queue(outbound_queue(partition_word(number)), passive=True)
            for number in sorted(ALL)
        ]
        return [queue.declaration_result.consumer_count or 0 for queue in queues]


class Conversations:
    """Users who speak all at once, again and again, and expect every answer at `/hook`."""

    def __init__(self, servers: Deployment, receiver: Receiver) -> None:
        self._servers = servers
        self._receiver = receiver
        self._channel = self._token = ""
        self._said = 0

    async def open(self) -> None:
        """Make the channel and its webhook."""
        self._channel, self._token = await self._servers.api.channel()
        await self._servers.api.webhook(self._channel, self._receiver, "/hook")

    async def everybody_speaks(self) -> float:
        """Say something as each user, wait for all answers, and return how long that took, in seconds."""
        self._said += 1
        began = time.monotonic()
        for user in USERS:
            text = f"message {self._said}"
            assert await self._servers.api.say(self._channel, self._token, user, text) == 200
        wanted = self._said * len(USERS)
        await until(
            lambda: self._receiver.distinct("/hook") == wanted, 30, f"all of message {self._said} have come"
        )
        return time.monotonic() - began

    def check(self) -> None:
        """Assert that every user got every answer in order."""
        for user in USERS:
            assert self._receiver.first_arrivals("/hook", user) == list(range(1, self._said + 1))


async def start_together(servers: Deployment, *commands: str) -> list[Process]:
    """Start processes side by side, and wait until all work."""
    started = await asyncio.gather(*(servers.start(command) for command in commands))
    return [process for processes in started for process in processes]


async def test_a_worker_joins_and_another_leaves(
    servers: Deployment, receiver: Receiver, amqp_url: str
) -> None:
    await servers.start("migrate")
    *_, first = await start_together(servers, "api", "bot", "deliver")
    await until(lambda: share(first) == ALL, JOINED_S + A_SECOND, "the first serves all")
    talk = Conversations(servers, receiver)
    await talk.open()
    await talk.everybody_speaks()

    (second,) = await servers.start("deliver")
    await until(lambda: halved(first, second), JOINED_S + A_SECOND, "each has a half")
    await talk.everybody_speaks()
    assert await consumers(amqp_url) == [1, 1, 1, 1], "what is given up is let go of"

    (code, took) = await asyncio.gather(first.stop(), talk.everybody_speaks())
    assert code == 0
    assert took < JOINED_S + A_SECOND, "nobody waits for the one that leaves"
    assert share(second) == ALL
    assert await consumers(amqp_url) == [1, 1, 1, 1]

    talk.check()
    assert receiver.repeats("/hook") == 0, "nothing died"


async def test_the_partitions_of_a_killed_worker_are_taken_over(
    servers: Deployment, receiver: Receiver
) -> None:
    await servers.start("migrate")
    *_, first, second = await start_together(servers, "api", "bot", "deliver", "deliver")
    talk = Conversations(servers, receiver)
    await talk.open()
    await until(lambda: halved(first, second), JOINED_S + A_SECOND, "each has a half")
    await talk.everybody_speaks()

    await first.kill()
    assert await talk.everybody_speaks() < TAKEN_OVER_S + A_SECOND
    assert share(second) == ALL
    talk.check()


async def test_bot_workers_share_too(servers: Deployment) -> None:
    await servers.start("migrate")
    one, other = await start_together(servers, "bot", "bot")
    await until(lambda: halved(one, other), JOINED_S + A_SECOND, "each has a half")
    await one.kill()
    await until(lambda: share(other) == ALL, TAKEN_OVER_S, "the other has them all")
