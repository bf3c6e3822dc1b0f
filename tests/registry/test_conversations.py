"""Turns are written once, with their conversation or not at all, whoever else writes at the same time."""

import asyncio
import sqlite3
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any
from uuid import uuid4

import pytest
from pydantic_core import to_json
from sqlalchemy import event

from broker.models.records import UserMessage, now
from broker.registry.channels import Channels
from broker.registry.conversations import Conversations, Loaded, NewTurn
from broker.registry.database import Database
from broker.registry.direct import Statement
from broker.registry.history import History
from broker.registry.records import Conversation, Turn
from broker.registry.webhooks import Webhooks

CHANNEL = "ch_a"


def message(user: str, *, channel_id: str = CHANNEL, message_id: str | None = None) -> UserMessage:
    return UserMessage.model_validate(
        {
            "id": message_id or str(uuid4()),
            "channelId": channel_id,
            "user": {"id": user},
            "message": {"textMessage": {"text": "hello"}},
        }
    )


def answered(
    asked: UserMessage, loaded: Loaded, *, count: int = 1, session: dict[str, Any] | None = None
) -> NewTurn:
    """Answer a message with `count` responses, from what was loaded of it."""
    before = loaded.conversation
    numbers = range(before.message_counter + 1, before.message_counter + count + 1)
    return NewTurn(
        Turn(
            message_id=asked.id,
            conversation_key=before.key,
            channel_id=before.channel_id,
            number=before.turns + 1,
            message=asked.model_dump(mode="json"),
            responses=[
                {"messageCounter": number, "message": {"text": f"said {number}"}} for number in numbers
            ],
            outcome="answered",
            published=False,
            created_at=now(),
        ),
        replace(
            before,
            session=before.session if session is None else to_json(session),
            message_counter=before.message_counter + count,
            turns=before.turns + 1,
        ),
    )


async def said(database: Database, user: str) -> list[int]:
    """List the message counters of a conversation, as its history has them."""
    responses = await History(database).responses_after(f"{CHANNEL}/{user}", 0, 10_000)
    return [response["messageCounter"] for response in responses]


async def test_what_is_not_there_loads_as_a_new_conversation(database: Database) -> None:
    asked = message("u")
    [loaded] = await Conversations(database).load([asked])
    assert loaded == Loaded(None, Conversation(f"{CHANNEL}/u", CHANNEL, "u", b"{}", 0, 0), None)


async def test_a_turn_is_loaded_as_it_was_written(database: Database) -> None:
    store = Conversations(database)
    channel, _ = await Channels(database).create("a", {"type": "echo"}, channel_id=CHANNEL)
    asked, later = message("u"), message("u")
    [loaded] = await store.load([asked])
    new = answered(asked, loaded, count=2, session={"name": "Ada", "address": {"city": "Gent"}})
    assert await store.commit([new]) == [True]
    assert await store.load([asked, later]) == [
        Loaded(channel, new.conversation, new.turn),
        Loaded(channel, new.conversation, None),
    ]
    await store.mark_published([asked.id, "unknown"])
    [loaded] = await store.load([asked])
    assert loaded.turn == replace(new.turn, published=True)


async def test_the_revision_that_is_loaded_knows_every_webhook(database: Database) -> None:
    channel, _ = await Channels(database).create("a", {}, channel_id=CHANNEL)
    await Webhooks(database).create(channel.id, url="https://example.com")
    [loaded] = await Conversations(database).load([message("u")])
    assert loaded.channel is not None
    assert loaded.channel.revision == 2


async def test_hostile_text_is_kept_exactly(database: Database) -> None:
    store = Conversations(database)
    user = "🐘\u202e" + "ü" * 254
    asked = message(user)
    hostile = {
        "nul\x00key": "a\x00b",
        "rtl": "\u202eשלום",
        "emoji": "👩‍👩‍👧",
        "quote": "'\"\\$1%s:x",
        "long": "x" * 300_000,
    }
    numbers = {"big": 2**63 - 1, "small": -(2**63), "float": 0.1, "no": None, "yes": True}
    [loaded] = await store.load([asked])
    new = answered(asked, loaded, session={**hostile, **numbers, "list": [[], {}]})
    new = replace(new, turn=replace(new.turn, responses=[{"messageCounter": 1, "message": hostile}]))
    assert await store.commit([new]) == [True]
    [loaded] = await store.load([asked])
    assert (loaded.conversation, loaded.turn) == (new.conversation, new.turn)


async def test_text_that_utf8_cannot_hold_spoils_no_batch(database: Database) -> None:
    store = Conversations(database)
    asked = [message("good"), message("bad")]
    good, bad = (answered(each, loaded) for each, loaded in zip(asked, await store.load(asked), strict=True))
    half = {"messageCounter": 1, "message": {"text": "half an emoji: \ud83d"}}
    bad = replace(bad, turn=replace(bad.turn, responses=[half]))
    assert await store.commit([good, bad]) == [True, True]
    turn = (await store.load([asked[1]]))[0].turn
    assert turn is not None
    assert turn.responses == [{"messageCounter": 1, "message": {"text": "half an emoji: \ufffd"}}]


async def test_a_conversation_that_moved_on_is_refused_and_the_others_are_written(database: Database) -> None:
    store = Conversations(database)
    asked = [message(user) for user in ("a", "b", "c")]
    stale = await store.load(asked)
    # Another worker answers b meanwhile.
    other = message("b")
    assert await store.commit([answered(other, stale[1])]) == [True]
    news = [answered(each, loaded, session={"lost": True}) for each, loaded in zip(asked, stale, strict=True)]
    assert await store.commit(news) == [True, False, True]
    a, b, c = await store.load(asked)
    assert (a.turn, b.turn, c.turn) == (news[0].turn, None, news[2].turn)
    assert b.conversation.session == b"{}"
    assert (b.conversation.turns, b.conversation.message_counter) == (1, 1)
    # With what it knows now, it is written.
    assert await store.commit([answered(asked[1], b)]) == [True]
    assert await said(database, "b") == [1, 2]


async def test_a_turn_that_does_not_follow_the_last_one_is_refused(database: Database) -> None:
    store = Conversations(database)
    asked = message("u")
    [loaded] = await store.load([asked])
    for turns in (3, -1):
        ahead = replace(loaded, conversation=replace(loaded.conversation, turns=turns, message_counter=9))
        assert await store.commit([answered(asked, ahead)]) == [False]
    assert await store.commit([answered(asked, loaded)]) == [True]
    later = message("u")
    ahead = replace(loaded, conversation=replace(loaded.conversation, turns=2, message_counter=9))
    assert await store.commit([answered(later, ahead)]) == [False]
    [known] = await store.load([later])
    assert (known.turn, known.conversation.turns, known.conversation.message_counter) == (None, 1, 1)


async def test_a_message_has_one_turn(database: Database) -> None:
    store = Conversations(database)
    asked = message("u")
    [loaded] = await store.load([asked])
    first = answered(asked, loaded)
    assert await store.commit([first]) == [True]
    assert await store.commit([first]) == [False]
    # Nor where the conversation is known as it is now.
    [loaded] = await store.load([asked])
    again = answered(asked, loaded, session={"again": True})
    fine = message("v")
    beside = answered(fine, (await store.load([fine]))[0])
    assert await store.commit([again, beside]) == [False, True]
    assert (await store.load([asked]))[0] == loaded
    assert await said(database, "u") == [1]


async def test_two_turns_of_one_conversation_in_one_batch(database: Database) -> None:
    store = Conversations(database)
    one, two = message("u"), message("u")
    [loaded] = await store.load([one])
    first = answered(one, loaded)
    second = answered(two, replace(loaded, conversation=first.conversation))
    assert await store.commit([first, second]) == [True, False]
    assert await store.commit([first, second, second]) == [False, False, False]
    assert await store.commit([second, second]) == [True, False]
    assert await said(database, "u") == [1, 2]


async def test_one_message_for_two_conversations_in_one_batch(database: Database) -> None:
    store = Conversations(database)
    asked = [message("a", message_id="same"), message("b", message_id="same")]
    news = [answered(each, loaded) for each, loaded in zip(asked, await store.load(asked), strict=True)]
    assert await store.commit(news) == [True, False]
    assert (await said(database, "a"), await said(database, "b")) == ([1], [])


async def test_a_conversation_that_was_deleted_does_not_come_back(database: Database) -> None:
    store, channels = Conversations(database), Channels(database)
    await channels.create("a", {}, channel_id=CHANNEL)
    one, two = message("u"), message("u")
    assert await store.commit([answered(one, (await store.load([one]))[0])]) == [True]
    loaded = await store.load([two])
    await channels.delete(CHANNEL)
    assert await store.commit([answered(two, loaded[0])]) == [False]
    assert await store.load([two]) == [
        Loaded(None, Conversation(f"{CHANNEL}/u", CHANNEL, "u", b"{}", 0, 0), None)
    ]


async def test_nothing_is_a_batch_too(database: Database) -> None:
    store = Conversations(database)
    assert await store.load([]) == []
    assert await store.commit([]) == []
    await store.mark_published([])


async def test_workers_that_compete_leave_no_gap_and_repeat_nothing(database_url: str) -> None:
    # All believe to hold the partition: each answers every message, again where it was overtaken.
    users = [f"u{n}" for n in range(12)]
    asked = [message(user) for user in users for _ in range(8)]
    databases = [Database(database_url) for _ in range(3)]
    written: list[str] = []

    async def work(database: Database, turn_about: int) -> None:
        store = Conversations(database)
        waiting = asked[::turn_about]
        while waiting:
            batch = list({each.user.id: each for each in reversed(waiting)}.values())
            loaded = await store.load(batch)
            news = [
                answered(each, known, count=1 + index % 3)
                for index, (each, known) in enumerate(zip(batch, loaded, strict=True))
                if known.turn is None
            ]
            done = await store.commit(news)
            written.extend(new.turn.message_id for new, kept in zip(news, done, strict=True) if kept)
            finished = {each.id for each, known in zip(batch, loaded, strict=True) if known.turn is not None}
            waiting = [each for each in waiting if each.id not in finished]

    async with asyncio.timeout(60):
        await asyncio.gather(*(work(each, turn) for each, turn in zip(databases, (1, -1, 1), strict=True)))
    assert sorted(written) == sorted(each.id for each in asked)
    for user in users:
        counters = await said(databases[0], user)
        assert counters == list(range(1, len(counters) + 1))
        page = await History(databases[0]).turns(f"{CHANNEL}/{user}", None, 100)
        assert [turn.number for turn in page.items] == list(range(8, 0, -1))
        [known] = await Conversations(databases[0]).load([message(user)])
        assert (known.conversation.turns, known.conversation.message_counter) == (8, len(counters))
    for database in databases:
        await database.close()


def statements_of(database: Database, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return a list that is filled with what PostgreSQL is asked for, or the steps that SQLite's thread makes."""
    statements: list[str] = []
    engine = database.engine.sync_engine
    event.listen(engine, "before_cursor_execute", lambda *args: statements.append(args[2]), named=False)
    write = database.in_thread

    async def in_thread(work: Callable[[sqlite3.Connection], Any]) -> Any:
        statements.append("write")
        return await write(work)

    monkeypatch.setattr(database, "in_thread", in_thread)
    if (direct := database.direct) is not None:
        run = direct.run

        async def run_directly(statement: Statement, given: Mapping[str, Any]) -> Any:
            statements.append(statement.text)
            return await run(statement, given)

        monkeypatch.setattr(direct, "run", run_directly)
    return statements


@pytest.mark.parametrize("size", [1, 300])
async def test_a_batch_costs_the_same_statements_whatever_its_size(
    database: Database, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    statements = statements_of(database, monkeypatch)
    store = Conversations(database)
    asked = [message(f"u{n}") for n in range(size)]
    loaded = await store.load(asked)
    for turn in range(2):
        assert all(
            await store.commit([answered(each, known) for each, known in zip(asked, loaded, strict=True)])
        )
        await store.mark_published([each.id for each in asked])
        asked = [message(f"u{n}") for n in range(size)]
        loaded = await store.load(asked)
        assert [known.conversation.turns for known in loaded] == [turn + 1] * size
    assert len(statements) == 3 + 2 * (1 + 1)
    # One text for each, so that it is prepared once; SQLite has one for turns and marks.
    assert len(set(statements)) == (2 if database.dialect == "sqlite" else 3)


async def test_turns_are_written_with_the_marks_of_earlier_ones(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Conversations(database)
    asked = [message(user) for user in "abc"]
    loaded = await store.load(asked)
    assert await store.commit([answered(asked[0], loaded[0])]) == [True]
    statements = statements_of(database, monkeypatch)
    new = [answered(*each) for each in zip(asked[1:], loaded[1:], strict=True)]
    assert await store.commit(new, [asked[0].id, "unknown"]) == [True, True]
    found = [known.turn for known in await store.load(asked)]
    assert [turn is not None and turn.published for turn in found] == [True, False, False]
    await store.mark_published([asked[2].id])
    assert await store.commit([], [asked[1].id]) == []
    found = [known.turn for known in await store.load(asked)]
    assert [turn is not None and turn.published for turn in found] == [True, True, True]
    # One for both, two queries of a load that finds turns, two marks, and the queries again.
    assert len(statements) == 7


async def test_two_stores_on_one_connection_know_their_own_turns(database: Database) -> None:
    stores = [Conversations(database), Conversations(database)]
    asked = [message(user) for user in "abcdef"]
    loaded = await stores[0].load(asked)
    new = [answered(*each) for each in zip(asked, loaded, strict=True)]
    assert await stores[0].commit(new[:3]) == [True] * 3
    # The same places of a batch, some of which are refused.
    assert await stores[1].commit([new[3], new[1], new[4]]) == [True, False, True]
    assert await stores[1].commit([new[0], new[5]]) == [False, True]


async def test_a_turn_made_for_a_channel_as_it_was_is_refused(database: Database) -> None:
    channels, store = Channels(database), Conversations(database)
    await channels.create("c", {"type": "echo"}, channel_id=CHANNEL)
    asked = [message("a"), message("b")]
    for _ in range(2):  # a conversation's first turn, and a later one
        loaded = await store.load(asked)
        new = [answered(*each) for each in zip(asked, loaded, strict=True)]
        assert loaded[0].channel is not None
        revision = loaded[0].channel.revision
        made_for = [replace(each, channel_revision=revision) for each in new]
        await Webhooks(database).create(CHANNEL, url="https://example.com")
        assert await store.commit([made_for[0], new[1]]) == [False, True]
        assert await store.commit([replace(made_for[0], channel_revision=revision + 1)]) == [True]
        asked = [message("a"), message("b")]
    loaded = await store.load(asked)
    assert [known.conversation.turns for known in loaded] == [2, 2]
    assert loaded[0].channel is not None
    await channels.delete(CHANNEL)
    new = [answered(*each) for each in zip(asked, loaded, strict=True)]
    assert await store.commit([replace(new[0], channel_revision=loaded[0].channel.revision)]) == [False]


async def test_a_channel_that_changed_or_was_deleted_is_loaded_as_it_is(database: Database) -> None:
    channels, store = Channels(database), Conversations(database)
    await channels.create("c", {"type": "echo"}, channel_id=CHANNEL)
    other, _ = await channels.create("other", {"type": "demo"})
    asked = [message("u"), message("u", channel_id=other.id), message("v")]
    for _ in range(2):
        found = [loaded.channel for loaded in await store.load(asked)]
        assert [channel and channel.bot for channel in found] == [
            {"type": kind} for kind in ("echo", "demo", "echo")
        ]
    await channels.update(CHANNEL, {"bot": {"type": "http"}})
    found = [loaded.channel for loaded in await store.load(asked)]
    assert [channel and channel.bot["type"] for channel in found] == ["http", "demo", "http"]
    await channels.delete(CHANNEL)
    found = [loaded.channel for loaded in await store.load(asked)]
    assert [channel and channel.id for channel in found] == [None, other.id, None]


async def test_a_turn_that_another_conversation_took_meanwhile_spoils_no_batch(database: Database) -> None:
    store = Conversations(database)
    first, second, innocent = message("a"), message("b"), message("c")
    second = second.model_copy(update={"id": first.id})
    loaded = await store.load([first, second, innocent])
    assert await store.commit([answered(first, loaded[0])]) == [True]
    news = [answered(each, known) for each, known in zip((second, innocent), loaded[1:], strict=True)]
    assert await store.commit(news) == [False, True]
    [known] = await store.load([message("b")])
    assert known.conversation.turns == 0, "nothing of it was written"


async def test_a_commit_that_is_cancelled_leaves_the_store_usable(database: Database) -> None:
    store = Conversations(database)
    loop = asyncio.get_running_loop()
    for round_number in range(200):
        asked = [message(f"u{round_number}-{n}") for n in range(3)]
        news = [answered(each, known) for each, known in zip(asked, await store.load(asked), strict=True)]
        task = asyncio.create_task(store.commit(news))
        # Anywhere in the time that a commit takes, which is 2 to 10 ms.
        timer = loop.call_later(round_number * 0.00005, task.cancel)
        await asyncio.wait({task})
        timer.cancel()
        # Written whole or not at all; and to write it again does no harm, nor takes long.
        async with asyncio.timeout(10):
            known = await store.load(asked)
            assert len({each.turn is None for each in known}) == 1
            again = await store.commit(news)
        assert again == [each.turn is None for each in known]


async def test_messages_of_more_channels_than_are_remembered_have_theirs_each(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("broker.registry.conversations.MOST_CHANNELS", 2)
    channels, store = Channels(database), Conversations(database)
    ids = [(await channels.create("test", {}))[0].id for _ in range(6)]
    await store.load([message("ada", channel_id=each) for each in ids[:3]])
    loaded = await store.load([message("ada", channel_id=each) for each in [*ids, "ch_gone"]])
    assert [None if each.channel is None else each.channel.id for each in loaded] == [*ids, None]
