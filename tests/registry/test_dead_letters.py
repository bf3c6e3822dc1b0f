"""Dead letters are kept whole, once each, and listed newest first."""

from typing import Any
from uuid import uuid4

import pytest

from broker.models.records import now
from broker.registry.database import Database
from broker.registry.dead_letters import DeadLetters
from broker.registry.records import DeadLetter


def letter(**changes: Any) -> DeadLetter:
    plain: dict[str, Any] = {
        "id": str(uuid4()),
        "stage": "intake",
        "reason": "not JSON",
        "detail": "line 1",
        "channel_id": None,
        "routing_key": "a.b",
        "headers": {"x-first-death-count": 3, "odd": "a\x00"},
        "body": bytes(range(256)),
        "created_at": now(),
    }
    return DeadLetter(**{**plain, **changes})


async def test_a_dead_letter_is_kept_whole(database: Database) -> None:
    store = DeadLetters(database)
    kept = letter(channel_id="ch_a", body=b"\x00" * 300_000)
    await store.add([kept])
    assert await store.get(kept.id) == kept
    assert await store.get("unknown\x00") is None


async def test_one_that_is_there_already_stays_as_it_is(database: Database) -> None:
    store = DeadLetters(database)
    kept, other = letter(), letter()
    await store.add([kept])
    await store.add([letter(id=kept.id, reason="another"), other, other])
    await store.add([])
    page = await store.page(None, 10)
    assert page.items == [other, kept]


async def test_nothing_that_a_stranger_writes_keeps_it_out(database: Database) -> None:
    store = DeadLetters(database)
    hostile = letter(
        stage="s" * 1000,
        reason="a\x00",
        detail="\ud800" * 3,
        channel_id="c" * 100_000,
        routing_key="\x00.🐘",
        headers={"deep": [[["\ud800"]]], "k\x00": "x" * 100_000},
    )
    await store.add([hostile, fine := letter()])
    assert await store.get(fine.id) == fine
    found = await store.get(hostile.id)
    assert found is not None
    assert (found.reason, found.detail, found.channel_id, found.routing_key) == (
        "a\ufffd",
        "\ufffd" * 3,
        None,
        "\ufffd.🐘",
    )
    assert found.body == hostile.body


async def test_dead_letters_are_listed_newest_first_page_by_page(database: Database) -> None:
    store = DeadLetters(database)
    letters = [letter() for _ in range(5)]
    await store.add(letters)
    first = await store.page(None, 2)
    await store.add([letter()])
    second = await store.page(first.next_cursor, 2)
    third = await store.page(second.next_cursor, 2)
    assert [*first.items, *second.items, *third.items] == letters[::-1]
    assert third.next_cursor is None
    with pytest.raises(ValueError, match="cursor"):
        await store.page("nonsense", 2)
