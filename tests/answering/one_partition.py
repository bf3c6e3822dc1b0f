"""One partition of a bot worker, served on a real broker, with bots that do as they are told."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from bot_worker_parts import idle

from broker.ids import new_message_id
from broker.models.builders import text
from broker.models.inbound import InboundMessage, TextMessage, User
from broker.models.records import BotResponse, UserMessage
from broker.partitions import conversation_key, partition_of, partition_word
from broker.port import Broker, Envelope
from broker.registry.channels import Channels
from broker.registry.conversations import Conversations
from broker.registry.database import Database
from broker.registry.suspects import Suspects
from broker.registry.waiting_messages import WaitingMessage, WaitingMessages
from broker.topology import INBOUND, inbound_key, inbound_queue, outbound_queue
from consumers.asking import Answering, Bots
from consumers.bot_times import BotTimes
from consumers.bot_worker import BotSession
from consumers.bots.protocol import Bot, Reply, Session
from consumers.health import Health
from consumers.message_parking import MessageParking
from consumers.serving import Stop, serve
from consumers.trials import Trials
from consumers.turn_writing import Turns

PARTITIONS = 4
PARTITION = 1
#: How long anything may take that is waited for, in seconds: a machine may be busy.
DEADLINE_S = 60.0


@dataclass
class Told:
    """A bot that takes as long as it is told to, and hangs while it may not go on."""

    wait_s: float = 0.0
    may_go_on: asyncio.Event = field(default_factory=asyncio.Event)
    asked: list[str] = field(default_factory=list)

    async def reply(self, message: UserMessage, session: Session) -> Reply:
        """Say what was said."""
        assert message.message is not None
        assert message.message.text_message is not None
        self.asked.append(message.id)
        await self.may_go_on.wait()
        if self.wait_s:
            await asyncio.sleep(self.wait_s)
        return Reply([text(message.message.text_message.text)], {"seen": session.get("seen", 0) + 1})


@dataclass
class OnePartition:
    """A channel for each bot, and what they said."""

    broker: Broker
    database: Database
    prefetch: int
    bots: dict[str, Bot] = field(default_factory=dict)
    #: What was said to each user, in the order in which it came.
    said: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    counters: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    async def channel(self, bot: Bot) -> str:
        """Make a channel with a bot of its own."""
        name = f"bot-{len(self.bots)}"
        self.bots[name] = bot
        made, _ = await Channels(self.database).create(name, {"type": name})
        return made.id

    def users(self, channel: str, count: int, name: str = "user") -> list[str]:
        """Name users whose conversations are in the partition."""
        found: list[str] = []
        number = 0
        while len(found) < count:
            user = f"{name}-{number}"
            if partition_of(conversation_key(channel, user), PARTITIONS) == PARTITION:
                found.append(user)
            number += 1
        return found

    async def say(self, channel: str, said: Sequence[tuple[str, str]]) -> None:
        """Publish what users say, in that order."""
        messages = self._messages(channel, said)
        for start in range(0, len(messages), 100):
            await asyncio.gather(
                *(self.broker.publish(INBOUND, each) for each in messages[start : start + 100])
            )

    async def leave_waiting(self, channel: str, said: Sequence[tuple[str, str]], returned: int = 0) -> None:
        """Have what users say wait, as a worker that is gone left it."""
        rows = [
            WaitingMessage(
                PARTITION,
                channel,
                conversation_key(channel, user),
                envelope.id,
                envelope.body,
                envelope.routing_key,
                returned=returned,
            )
            for envelope, (user, _) in zip(self._messages(channel, said), said, strict=True)
        ]
        await WaitingMessages(self.database).add(rows)

    def _messages(self, channel: str, said: Sequence[tuple[str, str]]) -> list[Envelope]:
        messages = [
            UserMessage(
                id=new_message_id(),
                channel_id=channel,
                user=User(id=user),
                message=InboundMessage(text_message=TextMessage(text=words)),
            )
            for user, words in said
        ]
        key = inbound_key(channel, PARTITION)
        return [Envelope(each.id, each.model_dump_json().encode(), key) for each in messages]

    @asynccontextmanager
    async def served(self) -> AsyncIterator[None]:
        """Serve the partition meanwhile."""
        shared = Answering(
            broker=self.broker,
            turns=Turns(Conversations(self.database)),
            bots=Bots(self._make, DEADLINE_S),
            parking=MessageParking(WaitingMessages(self.database)),
            times=BotTimes(),
            trials=Trials(Suspects(self.database)),
            partitions=PARTITIONS,
            prefetch=self.prefetch,
            bytes_each=20_000,
            busyness=idle(),
        )
        stop = Stop(0.0)
        queue = inbound_queue(partition_word(PARTITION))
        health = Health()
        serving = asyncio.create_task(
            serve(
                self.broker,
                queue,
                self.prefetch,
                lambda hold: BotSession(hold, shared, PARTITION),
                stop,
                shared.trials,
                health,
            )
        )
        try:
            yield
            assert health.complaint() == ""
        finally:
            stop.set()
            await serving
            await shared.turns.close()
            await shared.parking.close()

    @asynccontextmanager
    async def heard(self) -> AsyncIterator[None]:
        """Take down what is said meanwhile."""
        listening = asyncio.create_task(self._listen())
        try:
            yield
        finally:
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)

    async def until_said(self, count: int, users: Sequence[str]) -> None:
        """Wait until so many different things were said to these users together."""
        async with asyncio.timeout(DEADLINE_S):
            while sum(len(set(self.said[user])) for user in users) < count:
                self.changed.clear()
                await self.changed.wait()

    async def until_waiting(self, wanted: int) -> None:
        """Wait until so many messages wait in the registry, or more; none more where that is 0."""
        store = WaitingMessages(self.database)
        async with asyncio.timeout(DEADLINE_S):
            while True:
                waiting = sum((await store.counts()).values())
                if waiting >= wanted > 0 or waiting == wanted:
                    return
                await asyncio.sleep(0.02)  # a table sends no event

    def _make(self, config: Mapping[str, Any]) -> Bot:
        return self.bots[config["type"]]

    async def _listen(self) -> None:
        async with self.broker.subscribe(outbound_queue(partition_word(PARTITION)), 500) as hold:
            while True:
                for envelope in await hold.receive():
                    said = BotResponse.model_validate_json(envelope.body)
                    self.said[said.user_id].append(said.message["text"])
                    self.counters[said.user_id].append(said.message_counter)
                    hold.ack(envelope)
                self.changed.set()
