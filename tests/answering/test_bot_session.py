"""A bot worker's session on a real registry: one answer for each message, whatever happens in between."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from pydantic_core import from_json

from broker.errors import BrokerUnavailable
from broker.ids import new_message_id, new_repeatable_id
from broker.models.builders import text
from broker.models.inbound import InboundMessage, TextMessage, User
from broker.models.records import BotResponse, UserMessage
from broker.port import Envelope
from broker.registry.channels import Channels
from broker.registry.conversations import Conversations, Loaded
from broker.registry.database import Database
from broker.registry.history import History
from broker.registry.webhooks import Webhooks
from broker.topology import DEAD, RESPONSES
from consumers import turns as turn_rules
from consumers.bot_worker import Bots, BotSession
from consumers.bots.catalogue import UnknownBot
from consumers.bots.protocol import Bot, Reply, Session
from consumers.dead_letters import DETAIL, REASON
from consumers.turn_writing import Turns


@dataclass
class Counting:
    """Says `responses` things to each message, and counts in the session how often it was asked."""

    responses: int = 2
    asked: list[str] = field(default_factory=list)
    fails: Callable[[str], BaseException | None] = lambda said: None

    async def reply(self, message: UserMessage, session: Session) -> Reply:
        """Answer, or fail as it was told."""
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

    def responses(self, user: str) -> list[BotResponse]:
        """Return the responses to a user, in order."""
        found = [
            BotResponse.model_validate_json(e.body) for exchange, e in self.envelopes if exchange == RESPONSES
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
    """Conversations that note which messages are loaded."""

    def __init__(self, database: Database, loaded: list[str]) -> None:
        super().__init__(database)
        self._noted = loaded

    async def load(self, messages: Sequence[UserMessage]) -> list[Loaded]:
        """Note, and load."""
        self._noted.extend(message.id for message in messages)
        return await super().load(messages)


@dataclass
class Answering:
    """A bot worker's parts."""

    database: Database
    channel: str
    #: The ids of the messages that were loaded.
    loaded: list[str] = field(default_factory=list)
    bot: Counting = field(default_factory=Counting)
    broker: Published = field(default_factory=Published)
    acks: Acks = field(default_factory=Acks)

    def session(
        self, make: Callable[[Mapping[str, Any]], Bot] | None = None, timeout_s: float = 5
    ) -> BotSession:
        """Open a session; its registry side is its own, as another process's is."""
        bots = Bots(make or (lambda config: self.bot), timeout_s)
        turns = Turns(Loading(self.database, self.loaded))
        return BotSession(self.acks, self.broker, turns, bots, 4)  # type: ignore[arg-type]

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

    async def conversation(self, user: str = "ada") -> Any:
        """Read a conversation back."""
        probe = UserMessage.model_validate_json(self.message(0, user).body)
        (loaded,) = await Conversations(self.database).load([probe])
        return loaded.conversation


@pytest.fixture
async def answering(database_url: str) -> AsyncIterator[Answering]:
    database = Database(database_url)
    channel, _ = await Channels(database).create("test", {"type": "echo"})
    yield Answering(database, channel.id)
    await database.close()


@pytest.fixture(autouse=True)
def quick_tries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turn_rules, "WAITS_S", (0.001, 0.001))


async def test_counters_go_up_without_gaps_and_every_response_knows_its_place(answering: Answering) -> None:
    session = answering.session()
    users = [f"user-{n}" for n in range(20)]
    await session.take([answering.message(n, user) for n in range(1, 6) for user in users])
    await answering.acks.until(100)
    for user in users:
        said = answering.broker.responses(user)
        assert [response.message_counter for response in said] == list(range(1, 11))
        assert [response.message["text"] for response in said] == [
            f"{n}.{i}" for n in range(1, 6) for i in (0, 1)
        ]
        assert [(r.in_reply_to, r.index, r.count) for r in said[:2]] == [
            (f"{user}-1", 1, 2),
            (f"{user}-1", 2, 2),
        ]
        assert (await answering.conversation(user)).session == {"seen": 5}
    await session.stop(1)


async def test_a_message_that_comes_again_is_not_answered_again(answering: Answering) -> None:
    session = answering.session()
    await session.take([answering.message(1), answering.message(1), answering.message(2)])
    await answering.acks.until(3)
    assert answering.bot.asked == ["1", "2"]
    assert [r.message_counter for r in answering.broker.responses("ada")] == [1, 2, 3, 4]
    await session.stop(1)


async def test_a_worker_that_died_between_writing_and_publishing_left_the_same_answer_to_the_next(
    answering: Answering,
) -> None:
    answering.broker.away = lambda envelope: True
    first = answering.session()
    await first.take([answering.message(1)])
    async with asyncio.timeout(10):
        while (await answering.conversation()).turns == 0:
            pass
    await first.stop(0)
    assert answering.acks.acked == []
    answering.broker.away = lambda envelope: False
    second = answering.session()
    await second.take([answering.message(1), answering.message(2)])
    await answering.acks.until(2)
    assert answering.bot.asked == ["1", "2"]
    said = answering.broker.responses("ada")
    assert [r.message_counter for r in said] == [1, 2, 3, 4]
    assert len({r.id for r in said}) == 4
    await second.stop(1)


async def test_two_workers_that_both_believe_in_themselves_give_each_message_one_answer(
    answering: Answering,
) -> None:
    sessions = [answering.session(), answering.session()]
    for session in sessions:
        await session.take([answering.message(n) for n in range(1, 21)])
    await answering.acks.until(40)
    turns = (await History(answering.database).turns(f"{answering.channel}/ada", None, 100)).items
    assert sorted(turn.message["id"] for turn in turns) == sorted(f"ada-{n}" for n in range(1, 21))
    firsts = list(dict.fromkeys(r.message_counter for r in answering.broker.responses("ada")))
    assert firsts == list(range(1, 41))
    by_counter: dict[int, set[str]] = {}
    for response in answering.broker.responses("ada"):
        by_counter.setdefault(response.message_counter, set()).add(response.id)
    assert all(len(ids) == 1 for ids in by_counter.values()), "a counter names one response for ever"
    for session in sessions:
        await session.stop(1)


@pytest.mark.parametrize("failure", [RuntimeError("boom"), TimeoutError()])
async def test_a_bot_that_fails_every_time_makes_a_dead_letter_and_the_conversation_goes_on(
    answering: Answering, failure: BaseException
) -> None:
    answering.bot.fails = lambda said: failure if said == "2" else None
    session = answering.session(timeout_s=0.05)
    await session.take([answering.message(n) for n in (1, 2, 3)])
    await answering.acks.until(3)
    (letter,) = answering.broker.dead()
    assert letter.headers[REASON] == "the bot could not answer it"
    assert ("boom" if isinstance(failure, RuntimeError) else "0.05 s") in str(letter.headers[DETAIL])
    assert from_json(letter.body)["id"] == "ada-2"
    assert answering.bot.asked.count("2") == 3
    assert [r.message_counter for r in answering.broker.responses("ada")] == [1, 2, 3, 4]
    turns = (await History(answering.database).turns(f"{answering.channel}/ada", None, 10)).items
    assert [turn.outcome for turn in turns] == ["answered", "failed", "answered"]
    await session.stop(1)


async def test_a_bot_that_recovers_in_time_has_answered_once(answering: Answering) -> None:
    answering.bot.fails = lambda said: RuntimeError() if len(answering.bot.asked) < 3 else None
    session = answering.session()
    await session.take([answering.message(1)])
    await answering.acks.until(1)
    assert answering.broker.dead() == []
    assert (await answering.conversation()).session == {"seen": 1}
    await session.stop(1)


@pytest.mark.parametrize(
    "reply",
    [Reply(["not an object"], {}), Reply([{"x": object()}], {}), Reply([], {"x": object()}), None, "hello"],  # type: ignore[list-item]
    ids=["no object", "no JSON", "no session", "nothing", "text"],
)
async def test_a_reply_that_is_none_makes_a_dead_letter(answering: Answering, reply: Any) -> None:
    class Odd:
        async def reply(self, message: UserMessage, session: Session) -> Reply:
            return reply  # type: ignore[no-any-return]

    session = answering.session(lambda config: Odd())
    await session.take([answering.message(1)])
    await answering.acks.until(1)
    assert len(answering.broker.dead()) == 1
    await session.stop(1)


async def test_an_unknown_bot_and_an_unknown_channel_make_dead_letters(answering: Answering) -> None:
    def make(config: Mapping[str, Any]) -> Bot:
        raise UnknownBot("there is no bot of type 'x'")

    session = answering.session(make)
    await session.take([answering.message(1), answering.message(1, "bob", "ch_nowhere")])
    await answering.acks.until(2)
    details = {str(letter.headers[DETAIL]) for letter in answering.broker.dead()}
    assert any("no bot of type 'x'" in detail for detail in details)
    assert any("ch_nowhere" in detail for detail in details)
    await session.stop(1)


@pytest.mark.parametrize("body", [b"", b"{", b"{}", b'{"schemaVersion":2}', b"\xff"])
async def test_rubbish_makes_a_dead_letter_and_the_partition_goes_on(
    answering: Answering, body: bytes
) -> None:
    session = answering.session()
    await session.take([Envelope("rubbish", body), answering.message(1)])
    await answering.acks.until(2)
    assert [letter.body for letter in answering.broker.dead()] == [body]
    assert len(answering.broker.responses("ada")) == 2
    await session.stop(1)


async def test_a_bot_with_nothing_to_say_has_answered(answering: Answering) -> None:
    answering.bot.responses = 0
    session = answering.session()
    await session.take([answering.message(1)])
    await answering.acks.until(1)
    assert answering.broker.envelopes == []
    assert (await answering.conversation()).turns == 1
    await session.stop(1)


async def test_a_conversation_that_was_written_last_is_not_loaded_again(answering: Answering) -> None:
    session = answering.session()
    messages = [answering.new(n) for n in range(1, 6)]
    await session.take(messages)
    await answering.acks.until(5)
    assert answering.loaded == [messages[0].id]
    assert [r.message_counter for r in answering.broker.responses("ada")] == list(range(1, 11))
    assert (await answering.conversation()).session == {"seen": 5}
    await session.stop(1)


async def test_what_a_worker_remembers_and_another_changed_is_refused_and_loaded(
    answering: Answering,
) -> None:
    zombie, successor = answering.session(), answering.session()
    await zombie.take([answering.new(1)])
    await answering.acks.until(1)
    await successor.take([answering.new(2), answering.new(3)])
    await answering.acks.until(3)
    before = len(answering.loaded)
    fourth, fifth = answering.new(4), answering.new(5)
    await zombie.take([fourth, fifth])
    await answering.acks.until(5)
    # The fifth leans on what the fourth found.
    assert answering.loaded[before:] == [fourth.id]
    said = answering.broker.responses("ada")
    assert [r.message_counter for r in said] == list(range(1, 11))
    assert [r.message["text"] for r in said[6:]] == ["4.0", "4.1", "5.0", "5.1"]
    assert (await answering.conversation()).session == {"seen": 5}, (
        "none was counted twice, and none left out"
    )
    for session in (zombie, successor):
        await session.stop(1)


@pytest.mark.parametrize(
    ("id_", "returned"),
    [(new_message_id(), 1), (new_repeatable_id(), 0), (new_message_id(), 0), ("given", 0)],
    ids=["taken before", "of an Idempotency-Key", "just answered", "of the sender's own"],
)
async def test_what_may_have_been_answered_is_not_asked_again_by_who_remembers(
    answering: Answering, id_: str, returned: int
) -> None:
    session = answering.session()
    first = answering.message(1, id_=id_)
    later = [answering.new(n) for n in range(2, 4 if returned == 0 else 12)]
    await session.take([first, *later])
    await answering.acks.until(1 + len(later))
    asked = list(answering.bot.asked)
    await session.take([replace(first, returned=returned)])
    await answering.acks.until(2 + len(later))
    assert answering.bot.asked == asked
    assert len({r.id for r in answering.broker.responses("ada")}) == 2 * len(asked)
    await session.stop(1)


async def test_a_webhook_registered_before_the_bot_answers_is_known_to_the_answer(
    answering: Answering,
) -> None:
    session = answering.session()
    for number in range(1, 4):
        await session.take([answering.new(number)])
        await answering.acks.until(number)
        await Webhooks(answering.database).create(answering.channel, url="https://example.com")
    said = answering.broker.responses("ada")
    assert [r.channel_revision for r in said] == [1, 1, 2, 2, 3, 3]
    assert answering.bot.asked == ["1", "2", "3"], "who was asked with what is still so is not asked again"
    await session.stop(1)


async def test_a_bot_that_is_changed_meanwhile_is_the_one_that_answers(answering: Answering) -> None:
    session = answering.session()
    await session.take([answering.new(1)])
    await answering.acks.until(1)
    await Channels(answering.database).update(answering.channel, {"bot": {"type": "another"}})
    await session.take([answering.new(2)])
    await answering.acks.until(2)
    assert answering.bot.asked == ["1", "2", "2"]
    assert [r.message_counter for r in answering.broker.responses("ada")] == [1, 2, 3, 4]
    await Channels(answering.database).delete(answering.channel)
    await session.take([answering.new(3)])
    await answering.acks.until(3)
    (letter,) = answering.broker.dead()
    assert letter.headers[REASON] == "unknown channel"
    await session.stop(1)


async def test_a_response_is_written_as_its_model_writes_it(answering: Answering) -> None:
    session = answering.session()
    await session.take([answering.new(1)])
    await answering.acks.until(1)
    for _, envelope in answering.broker.envelopes:
        written = from_json(envelope.body)
        assert BotResponse.read(written).model_dump(mode="json") == written
    await session.stop(1)
