"""Dead letters that are tried once more: which are found, and in which order they go."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from broker.registry.database import Database
from broker.registry.dead_letters import DeadLetters
from broker.registry.records import DeadLetter

AT = datetime(2026, 5, 4, 3, 2, 1, 123456, UTC)


def letter(number: int, **changes: Any) -> DeadLetter:
    plain: dict[str, Any] = {
        "id": f"00000000-0000-0000-0000-{number:012d}",
        "stage": "intake",
        "reason": "not a valid message",
        "detail": "",
        "channel_id": None,
        "routing_key": "a.b",
        "headers": {},
        "body": b"x",
        "created_at": AT + timedelta(minutes=number),
    }
    return DeadLetter(**{**plain, **changes})


async def test_dead_letters_are_found_by_stage_and_channel(database: Database) -> None:
    store = DeadLetters(database)
    letters = [
        letter(1),
        letter(2, stage="bot", channel_id="ch_a"),
        letter(3, stage="bot", channel_id="ch_b"),
        # The broker does not say whose it was, and the routing key does.
        letter(4, stage="broker", routing_key="message.ch_a.p03"),
        letter(5, stage="broker", routing_key="response.ch_a.quick_replies.p03"),
        # An outside program may write any key.
        letter(6, stage="intake", routing_key="message.ch_a.p03"),
    ]
    await store.add(letters)

    async def numbers(**filters: Any) -> list[int]:
        return [int(each.id[-4:]) for each in (await store.page(None, 10, **filters)).items]

    assert await numbers(stage="bot") == [3, 2]
    assert await numbers(channel_id="ch_a") == [5, 4, 2]
    assert await numbers(channel_id="ch_a", stage="broker") == [5, 4]
    assert await numbers(stage="nowhere") == []


async def test_dead_letters_to_redrive_come_oldest_first_and_end_where_they_ended_at_the_start(
    database: Database,
) -> None:
    store = DeadLetters(database)
    await store.add([letter(n) for n in range(1, 6)])
    await store.redriven(letter(2).id, AT)
    first = await store.to_redrive(None, 2)
    assert first.items == [letter(1).id, letter(3).id]
    for each in first.items:
        await store.redriven(each, AT)
    # They die again, under new ids, while the rest is being redriven.
    await store.add([letter(6), letter(7)])
    second = await store.to_redrive(first.next_cursor, 2)
    assert (second.items, second.next_cursor) == ([letter(4).id, letter(5).id], None)
    since = await store.to_redrive(None, 10, since=AT + timedelta(minutes=5))
    assert since.items == [letter(5).id, letter(6).id, letter(7).id]
    with pytest.raises(ValueError, match="cursor"):
        await store.to_redrive("nonsense", 2)


async def test_a_dead_letter_that_was_redriven_and_dies_again_is_to_be_redriven_again(
    database: Database,
) -> None:
    # What the broker gives up keeps its id, and so is the same letter.
    store = DeadLetters(database)
    await store.add([letter(1), letter(2)])
    await store.redriven(letter(1).id, AT)
    found = await store.get(letter(1).id)
    assert found is not None
    assert found.redriven_at == AT
    await store.add([letter(1, reason="delivery_limit", created_at=AT + timedelta(days=1))])
    found = await store.get(letter(1).id)
    assert found is not None
    assert (found.reason, found.redriven_at) == ("delivery_limit", None)
    assert (await store.to_redrive(None, 10)).items == [letter(1).id, letter(2).id]
