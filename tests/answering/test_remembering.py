"""What a bot worker remembers of conversations: it spares the database, and never decides anything."""

from dataclasses import replace

import pytest
from bot_worker_parts import Answering
from sqlalchemy import delete, update

from broker.ids import new_message_id, new_repeatable_id
from broker.registry.channels import Channels
from broker.registry.tables import channels, conversations, turns, webhooks
from broker.registry.webhooks import Webhooks
from consumers.dead_letters import REASON


async def test_a_conversation_that_was_written_last_is_not_loaded_again(answering: Answering) -> None:
    session = answering.session()
    messages = [answering.new(n) for n in range(1, 6)]
    await session.take(messages)
    await answering.acks.until(5)
    assert answering.loaded == [messages[0].id]
    assert [r.message_counter for r in answering.broker.responses("ada")] == list(range(1, 11))
    assert await answering.kept_session() == {"seen": 5}
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
    assert await answering.kept_session() == {"seen": 5}, "none was counted twice, and none left out"
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


async def test_what_a_restored_database_does_not_have_is_forgotten_and_nothing_is_refused_for_ever(
    answering: Answering,
) -> None:
    session = answering.session()
    for number in range(1, 4):
        await session.take([answering.new(number), answering.message(number, "bob")])
        await Webhooks(answering.database).create(answering.channel, url="https://example.com")
        await answering.acks.until(2 * number)
    async with answering.database.write() as connection:
        for table in (turns, conversations, webhooks):
            await connection.execute(delete(table))
        await connection.execute(update(channels).values(revision=1))
    asked = len(answering.bot.asked)
    last = answering.new(4)
    await session.take([last, answering.message(4, "bob")])
    await answering.acks.until(8)
    assert answering.bot.asked[asked:].count("4") <= 4, "each at most once more than it has answers"
    for user in ("ada", "bob"):
        said = answering.broker.responses(user)[-2:]
        assert [(r.message_counter, r.channel_revision) for r in said] == [(1, 1), (2, 1)]
        assert await answering.kept_session(user) == {"seen": 1}
    await session.stop(1)
