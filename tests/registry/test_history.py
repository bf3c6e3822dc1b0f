"""The history of a conversation, and the log of responses that is pulled."""

from dataclasses import replace

import pytest

from broker.models.records import now
from broker.registry.conversations import Conversations, NewTurn
from broker.registry.database import Database
from broker.registry.history import History
from broker.registry.records import Conversation, Turn

KEY = "ch_a/u"


async def talk(database: Database, counts: list[int], key: str = KEY) -> list[Turn]:
    """Write turns with so many responses each."""
    store, made, counter = Conversations(database), [], 0
    for number, count in enumerate(counts, start=1):
        responses = [{"messageCounter": counter + n + 1, "message": {"text": "x"}} for n in range(count)]
        counter += count
        turn = Turn(f"{key}-{number}", key, "ch_a", number, {}, responses, "answered", not count, now())
        conversation = Conversation(key, "ch_a", key.partition("/")[2], b"{}", counter, number)
        assert await store.commit([NewTurn(turn, conversation)]) == [True]
        made.append(turn)
    return made


async def test_turns_are_listed_newest_first_page_by_page(database: Database) -> None:
    made = await talk(database, [1, 0, 2, 1, 1])
    await talk(database, [3], "ch_a/u2")
    history = History(database)
    first = await history.turns(KEY, None, 2)
    assert first.items == [made[4], made[3]]
    # One that is written meanwhile shifts no page.
    more = replace(made[4], message_id="later", number=6, responses=[])
    assert await Conversations(database).commit(
        [NewTurn(more, Conversation(KEY, "ch_a", "u", b"{}", 5, 6))]
    ) == [True]
    second = await history.turns(KEY, first.next_cursor, 2)
    assert second.items == [made[2], made[1]]
    third = await history.turns(KEY, second.next_cursor, 2)
    assert (third.items, third.next_cursor) == ([made[0]], None)


async def test_a_page_that_is_just_full_is_the_last(database: Database) -> None:
    await talk(database, [1, 1])
    page = await History(database).turns(KEY, None, 2)
    assert (len(page.items), page.next_cursor) == (2, None)


@pytest.mark.parametrize("key", ["ch_a/none", "", "ch_a/\x00", "ch_a/\ud800"])
async def test_a_conversation_that_is_not_there_has_none(database: Database, key: str) -> None:
    await talk(database, [1])
    assert (await History(database).turns(key, None, 10)).items == []
    assert await History(database).responses_after(key, 0, 10) == []


async def test_responses_are_pulled_in_order_from_where_one_was(database: Database) -> None:
    await talk(database, [2, 0, 0, 0, 3, 1])
    history = History(database)

    async def after(counter: int, limit: int) -> list[int]:
        return [each["messageCounter"] for each in await history.responses_after(KEY, counter, limit)]

    assert await after(0, 100) == [1, 2, 3, 4, 5, 6]
    # Turns without a response take up no place, and a turn may be left off in its middle.
    assert await after(0, 3) == [1, 2, 3]
    assert await after(1, 1) == [2]
    assert await after(3, 2) == [4, 5]
    assert await after(6, 10) == []
    assert await after(2**62, 10) == []
    assert await after(-1, 2) == [1, 2]
