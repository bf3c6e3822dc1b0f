"""A bot worker's session on a real registry: one answer for each message, whatever happens in between."""

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from bot_worker_parts import Answering
from pydantic_core import from_json
from sqlalchemy import text

from broker.errors import Unpublishable
from broker.ids import new_message_id
from broker.models.inbound import InboundMessage, TextMessage, User
from broker.models.records import BotResponse, UserMessage
from broker.port import Envelope
from broker.registry.database import Database
from broker.registry.history import History
from consumers.bots.catalogue import UnknownBot
from consumers.bots.protocol import Bot, Reply, Session
from consumers.dead_letters import CHANNEL, DETAIL, REASON


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
        assert await answering.kept_session(user) == {"seen": 5}
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


async def test_a_turn_that_is_being_written_when_its_session_stops_is_found_by_the_next(
    answering: Answering, database_url: str
) -> None:
    other = Database(database_url)
    first = answering.session()
    async with other.write() as connection:
        if other.dialect == "postgresql":
            await connection.execute(text("LOCK TABLE turns IN EXCLUSIVE MODE"))
        await first.take([answering.message(1)])
        await answering.committing.wait()
        stopping = asyncio.create_task(first.stop(0))
        await asyncio.wait({stopping}, timeout=0.2)
        second = answering.session()
        if stopping.done():
            await second.take([answering.message(1)])
            for _ in range(100):
                if len(answering.bot.asked) == 1:
                    await asyncio.sleep(0.01)
    await stopping
    await second.take([answering.message(1)])
    await answering.acks.until(1)
    assert answering.bot.asked == ["1"]
    await second.stop(1)
    await other.close()


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


def writing(answering: Answering, number: int, said: str, data: Mapping[str, Any]) -> Envelope:
    message = UserMessage.model_validate_json(answering.message(number).body)
    written = message.model_copy(
        update={
            "session_data": dict(data),
            "message": InboundMessage(text_message=TextMessage(text=said)),
        }
    )
    return Envelope(message.id, written.model_dump_json().encode())


async def test_a_session_that_would_grow_beyond_what_is_kept_is_a_failed_turn_and_stays_as_it_was(
    answering: Answering,
) -> None:
    session = answering.session()
    large = "x" * 150_000
    await session.take(
        [
            writing(answering, 1, "first", {"one": large}),
            writing(answering, 2, "grows", {"two": large}),
            writing(answering, 3, "hello", {}),
            writing(answering, 4, "clears", {"one": None}),
            writing(answering, 5, "again", {"two": large}),
        ]
    )
    await answering.acks.until(5)
    assert answering.bot.asked == ["first", "hello", "clears", "again"], (
        "not asked with a session it may not have"
    )
    (letter,) = answering.broker.dead()
    assert "300,0" in str(letter.headers[DETAIL])
    assert "262,144" in str(letter.headers[DETAIL])
    assert await answering.kept_session() == {"one": None, "two": large, "seen": 4}
    await session.stop(1)


async def test_a_bot_that_makes_a_session_or_a_response_too_large_has_failed(answering: Answering) -> None:
    class Swelling:
        async def reply(self, message: UserMessage, session: Session) -> Reply:
            assert message.message is not None
            said = message.message.text_message.text if message.message.text_message else ""
            if said == "session":
                return Reply([], {"x": "x" * 300_000})
            return Reply([{"text": "y" * (1_100_000 if said == "response" else 1)}], {"kept": True})

    session = answering.session(lambda config: Swelling())
    await session.take(
        [writing(answering, n, word, {}) for n, word in enumerate(("a", "session", "response"))]
    )
    await answering.acks.until(3)
    assert [letter.headers[DETAIL] for letter in answering.broker.dead()] == [
        "the session would have 300,008 bytes of JSON; at most 262,144 are kept",
        "it said 1,100,011 bytes of JSON in one message; at most 1,048,576 are taken",
    ]
    assert await answering.kept_session() == {"kept": True}
    await session.stop(1)


class Speechless(Exception):
    """Cannot say what it is."""

    def __str__(self) -> str:
        raise RuntimeError("no words")


@pytest.mark.parametrize(
    "failure",
    [
        asyncio.CancelledError(),
        SystemExit(1),
        Speechless(),
        RuntimeError("half a letter: \ud83d, and \x00"),
        RecursionError(),
        ExceptionGroup("many", [ValueError()]),
    ],
    ids=lambda failure: type(failure).__name__,
)
async def test_whatever_a_bot_raises_is_a_dead_letter_and_ends_no_session(
    answering: Answering, failure: BaseException
) -> None:
    answering.bot.fails = lambda said: failure if said == "1" else None
    session = answering.session()
    await session.take([answering.message(n) for n in (1, 2)])
    await answering.acks.until(2)
    assert not session.failed.done()
    (letter,) = answering.broker.dead()
    detail = str(letter.headers[DETAIL])
    assert type(failure).__name__ in detail
    assert detail.encode()
    assert [r.message_counter for r in answering.broker.responses("ada")] == [1, 2]
    await session.stop(1)


async def test_settings_that_no_bot_can_be_made_of_make_dead_letters_and_end_no_session(
    answering: Answering,
) -> None:
    def make(settings: object) -> Any:
        raise KeyError("nobody has thought of this")

    session = answering.session(make)
    await session.take([answering.message(1)])
    await answering.acks.until(1)
    assert not session.failed.done()
    assert len(answering.broker.dead()) == 1
    await session.stop(1)


async def test_a_bot_that_recovers_in_time_has_answered_once(answering: Answering) -> None:
    answering.bot.fails = lambda said: RuntimeError() if len(answering.bot.asked) < 3 else None
    session = answering.session()
    await session.take([answering.message(1)])
    await answering.acks.until(1)
    assert answering.broker.dead() == []
    assert await answering.kept_session() == {"seen": 1}
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


async def test_a_message_that_only_writes_to_the_session_asks_no_bot_and_the_next_one_sees_it(
    answering: Answering,
) -> None:
    session = answering.session()

    def writing(user: str, **data: Any) -> Envelope:
        record = UserMessage(
            id=new_message_id(), channel_id=answering.channel, user=User(id=user), session_data=data
        )
        return Envelope(record.id, record.model_dump_json().encode())

    # Of a user who never said anything, and of one who did.
    first = writing("ada", seen=10, city="Gent")
    await session.take([first, answering.message(1), writing("ada", seen=20), answering.message(2)])
    await answering.acks.until(4)
    assert answering.bot.asked == ["1", "2"]
    assert await answering.kept_session() == {"seen": 21, "city": "Gent"}
    assert [r.message_counter for r in answering.broker.responses("ada")] == [1, 2, 3, 4]
    assert answering.broker.dead() == []
    # What comes again writes nothing again.
    await session.take([replace(first, returned=1)])
    await answering.acks.until(5)
    assert await answering.kept_session() == {"seen": 21, "city": "Gent"}
    await session.stop(1)


async def test_the_session_is_written_also_where_there_is_no_such_bot(answering: Answering) -> None:
    def make(config: Mapping[str, Any]) -> Bot:
        raise UnknownBot("there is no bot of type 'x'")

    session = answering.session(make)
    record = UserMessage(
        id=new_message_id(), channel_id=answering.channel, user=User(id="ada"), session_data={"a.b": 1}
    )
    await session.take([Envelope(record.id, record.model_dump_json().encode())])
    await answering.acks.until(1)
    assert await answering.kept_session() == {"a": {"b": 1}}
    assert answering.broker.dead() == []
    await session.stop(1)


async def test_a_bot_with_nothing_to_say_has_answered(answering: Answering) -> None:
    answering.bot.responses = 0
    session = answering.session()
    await session.take([answering.message(1)])
    await answering.acks.until(1)
    assert answering.broker.envelopes == []
    assert (await answering.conversation()).turns == 1
    await session.stop(1)


async def test_a_response_is_written_as_its_model_writes_it(answering: Answering) -> None:
    session = answering.session()
    await session.take([answering.new(1)])
    await answering.acks.until(1)
    for _, envelope in answering.broker.envelopes:
        written = from_json(envelope.body)
        assert BotResponse.read(written).model_dump(mode="json") == written
    await session.stop(1)


async def test_a_response_that_the_broker_cannot_carry_is_a_dead_letter_and_the_lane_goes_on(
    answering: Answering,
) -> None:
    def refuses(envelope: Envelope) -> bool:
        if b'"1.0"' in envelope.body and envelope.routing_key.startswith("response."):
            raise Unpublishable("Its body is too large.")
        return False

    answering.broker.away = refuses
    session = answering.session()
    await session.take([answering.message(1), answering.message(2)])
    await answering.acks.until(2)
    await session.stop(1)
    assert [said.message["text"] for said in answering.broker.responses("ada")] == ["1.1", "2.0", "2.1"]
    (letter,) = answering.broker.dead()
    assert (letter.headers[REASON], letter.headers[DETAIL]) == (
        "too large for the broker",
        "Its body is too large.",
    )
    assert letter.headers[CHANNEL] == answering.channel
    assert b'"1.0"' in letter.body
