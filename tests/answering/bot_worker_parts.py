"""Parts of a bot worker on a real registry, with a bot and a broker that do as they are told."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic_core import from_json

from broker.errors import BrokerUnavailable
from broker.ids import new_message_id
from broker.models.builders import text
from broker.models.inbound import InboundMessage, TextMessage, User
from broker.models.records import BotResponse, UserMessage
from broker.port import Envelope
from broker.registry.conversations import Conversations, Loaded, NewTurn
from broker.registry.database import Database
from broker.registry.records import Conversation
from broker.registry.suspects import Suspects
from broker.registry.waiting_messages import WaitingMessages
from broker.topology import DEAD, OUTBOUND
from consumers.asking import Answering as Shared
from consumers.asking import Bots
from consumers.bot_times import BotTimes
from consumers.bot_worker import BotSession
from consumers.bots.protocol import Bot, Reply, Session
from consumers.busyness import Busyness
from consumers.message_parking import MessageParking
from consumers.trials import Trials
from consumers.turn_writing import Turns


@dataclass
class Counting:
    """Says `responses` things to each message, and counts in the session how often it was asked."""

    responses: int = 2
    asked: list[str] = field(default_factory=list)
    fails: Callable[[str], BaseException | None] = lambda said: None

    async def reply(self, message: UserMessage, session: Session) -> Reply:
        """Answer, or fail as it was told."""
        assert message.message is not None
        said = message.message.text_message.text if message.message.text_message else ""
        self.asked.append(said)
        failure = self.fails(said)
        if isinstance(failure, TimeoutError):
            await asyncio.get_running_loop().create_future()
        if failure is not None:
            raise failure
        seen = session.get("seen", 0) + 1
        return Reply([text(f"{said}.{n}") for n in range(self.responses)], {**session, "seen": seen})


@dataclass
class Published:
    """A broker that keeps what is published to it, and is away where it is told to be."""

    envelopes: list[tuple[str, Envelope]] = field(default_factory=list)
    away: Callable[[Envelope], bool] = lambda envelope: False

    async def publish(self, exchange: str, envelope: Envelope) -> None:
        """Keep it."""
        if self.away(envelope):
            raise BrokerUnavailable("away")
        self.envelopes.append((exchange, envelope))

    def copy(self, envelope: Envelope) -> None:
        """Nobody reads along."""

    def responses(self, user: str) -> list[BotResponse]:
        """Return the responses to a user, in order."""
        found = [
            BotResponse.model_validate_json(e.body) for exchange, e in self.envelopes if exchange == OUTBOUND
        ]
        return [response for response in found if response.user_id == user]

    def dead(self) -> list[Envelope]:
        """Return the dead letters."""
        return [envelope for exchange, envelope in self.envelopes if exchange == DEAD]


@dataclass
class Acks:
    """Remembers what was acknowledged."""

    acked: list[str] = field(default_factory=list)
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def ack(self, envelope: Envelope) -> None:
        """Remember."""
        self.acked.append(envelope.id)
        self.changed.set()

    async def until(self, count: int) -> None:
        """Wait for so many."""
        async with asyncio.timeout(20):
            while len(self.acked) < count:
                self.changed.clear()
                await self.changed.wait()


class Loading(Conversations):
    """Conversations that note which messages are loaded, and when a commit begins."""

    def __init__(self, database: Database, loaded: list[str], committing: asyncio.Event) -> None:
        super().__init__(database)
        self._noted = loaded
        self._committing = committing

    async def load(self, messages: Sequence[UserMessage]) -> list[Loaded]:
        """Note, and load."""
        self._noted.extend(message.id for message in messages)
        return await super().load(messages)

    async def commit(self, new: Sequence[NewTurn], published: Sequence[str] = ()) -> list[bool]:
        """Note, and commit."""
        self._committing.set()
        return await super().commit(new, published)


def idle() -> Busyness:
    """Make what says that this process has nothing to do, whatever else the machine has."""
    busyness = Busyness()
    busyness.part = 0.0
    return busyness


@dataclass
class Answering:
    """A bot worker's parts."""

    database: Database
    channel: str
    #: The ids of the messages that were loaded.
    loaded: list[str] = field(default_factory=list)
    committing: asyncio.Event = field(default_factory=asyncio.Event)
    bot: Counting = field(default_factory=Counting)
    broker: Published = field(default_factory=Published)
    acks: Acks = field(default_factory=Acks)

    def session(
        self,
        make: Callable[[Mapping[str, Any]], Bot] | None = None,
        timeout_s: float = 5,
        prefetch: int = 200,
    ) -> BotSession:
        """Open a session; its registry side is its own, as another process's is."""
        shared = Shared(
            broker=self.broker,  # type: ignore[arg-type]
            turns=Turns(Loading(self.database, self.loaded, self.committing)),
            bots=Bots(make or (lambda config: self.bot), timeout_s),
            parking=MessageParking(WaitingMessages(self.database)),
            times=BotTimes(),
            trials=Trials(Suspects(self.database)),
            partitions=4,
            prefetch=prefetch,
            bytes_each=20_000,
            busyness=idle(),
        )
        return BotSession(self.acks, shared, 1)  # type: ignore[arg-type]

    def message(
        self, number: int, user: str = "ada", channel: str | None = None, id_: str | None = None
    ) -> Envelope:
        """Make the number-th message of a user."""
        record = UserMessage(
            id=id_ or f"{user}-{number}",
            channel_id=channel or self.channel,
            user=User(id=user),
            message=InboundMessage(text_message=TextMessage(text=str(number))),
        )
        return Envelope(record.id, record.model_dump_json().encode())

    def new(self, number: int) -> Envelope:
        """Make a message as the API does that was not told a key of it."""
        return self.message(number, id_=new_message_id())

    async def conversation(self, user: str = "ada") -> Conversation:
        """Read a conversation back."""
        probe = UserMessage.model_validate_json(self.message(0, user).body)
        (loaded,) = await Conversations(self.database).load([probe])
        return loaded.conversation

    async def kept_session(self, user: str = "ada") -> Any:
        """Read a conversation's session back."""
        return from_json((await self.conversation(user)).session)
