"""The log of deliveries: a settled one stays as it is, whatever is written again."""

from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import event, func, select, text

from broker.registry.database import Database
from broker.registry.deliveries import Deliveries
from broker.registry.records import Attempt, Delivery, DeliveryStatus
from broker.registry.tables import attempts

AT = datetime(2026, 5, 4, 3, 2, 1, 123456, UTC)


def attempt(number: int, *, status_code: int | None = 500, error: str | None = None) -> Attempt:
    started = AT + timedelta(seconds=number)
    return Attempt(number, started, 20 + number, status_code, error, "", f"answer {number}")


def delivery(
    status: DeliveryStatus,
    made: Iterable[Attempt] = (),
    *,
    at: datetime = AT,
    webhook: str = "wh_a",
    **changes: Any,
) -> Delivery:
    made = tuple(made)
    finished = None
    if status != "pending":
        finished = made[-1].started_at + timedelta(milliseconds=made[-1].duration_ms) if made else at
    plain = Delivery(
        id=str(uuid4()),
        webhook_id=webhook,
        channel_id="ch_a",
        conversation_key="ch_a/u",
        user_id="u",
        response_id=str(uuid4()),
        message_counter=1,
        status=status,
        reason=None,
        attempt_count=len(made),
        created_at=at,
        finished_at=finished,
        response=None if status == "delivered" else {"message": {"text": "a\x00🐘"}},
        attempts=made,
    )
    return replace(plain, **changes)


async def rows_of_attempts(database: Database) -> int:
    async with database.read() as connection:
        return await connection.scalar(select(func.count()).select_from(attempts)) or 0


async def test_a_first_try_that_succeeds_costs_one_row(database: Database) -> None:
    store = Deliveries(database)
    at_once = delivery("delivered", [replace(attempt(1, status_code=204), answer="")])
    await store.log([at_once])
    assert await rows_of_attempts(database) == 0
    assert await store.get(at_once.id) == at_once


async def test_one_that_succeeds_later_keeps_the_number_of_its_attempts(database: Database) -> None:
    store = Deliveries(database)
    third = replace(delivery("delivered", [attempt(3, status_code=200)]), attempt_count=3)
    await store.log([third])
    kept = await store.get(third.id)
    assert kept is not None
    assert kept.attempt_count == 3


async def test_every_failed_attempt_is_kept(database: Database) -> None:
    store = Deliveries(database)
    failures = [attempt(1), attempt(2, status_code=None, error="timeout")]
    late = delivery("delivered", [*failures, replace(attempt(3, status_code=200), answer="")])
    dead = delivery("dead", [*failures, attempt(3, status_code=410)], reason="410")
    expired = delivery("expired", [], reason="too old")
    await store.log([late, dead, expired])
    for each in (late, dead, expired):
        assert await store.get(each.id) == each
    # A listing tells how many there were and not each of them.
    page = await store.page("ch_a", None, 10)
    assert {each.id: (each.attempt_count, each.attempts) for each in page.items} == {
        late.id: (3, ()),
        dead.id: (3, ()),
        expired.id: (0, ()),
    }


async def test_a_repeat_changes_nothing(database: Database) -> None:
    store = Deliveries(database)
    settled = [
        delivery("delivered", [replace(attempt(1, status_code=200), answer="")]),
        delivery("dead", [attempt(1), attempt(2)], reason="400"),
        delivery("expired", [], reason="too old"),
    ]
    await store.log(settled)
    await store.log([*settled, *settled])
    for each in settled:
        others: list[DeliveryStatus] = ["pending", "delivered", "dead", "expired"]
        await store.log(
            [replace(each, status=status, reason="another", attempt_count=9) for status in others]
        )
        assert await store.get(each.id) == each


async def test_a_pending_one_takes_what_became_of_it(database: Database) -> None:
    store = Deliveries(database)
    parked = [delivery("pending", [attempt(1)]) for _ in range(4)]
    await store.log(parked)
    tried, delivered, dead, repeated = parked
    tried = replace(tried, attempts=(attempt(1), attempt(2)), attempt_count=2)
    success = replace(attempt(2, status_code=200), answer="")
    ended = success.started_at + timedelta(milliseconds=success.duration_ms)
    delivered = replace(
        delivered,
        status="delivered",
        response=None,
        attempts=(attempt(1), success),
        attempt_count=2,
        finished_at=ended,
    )
    dead = replace(dead, status="dead", reason="400", finished_at=AT)
    # Whoever parks it again and knows nothing of its attempts takes none away.
    ignorant = replace(repeated, attempts=(), attempt_count=0)
    await store.log([tried, delivered, dead, ignorant])
    for each in (tried, delivered, dead, repeated):
        assert await store.get(each.id) == each


async def test_a_pending_one_is_settled_by_whoever_settles_it(database: Database) -> None:
    # By a worker that did not know of the attempts before: they stay, and they count.
    store = Deliveries(database)
    parked = delivery("pending", [attempt(1), attempt(2)])
    await store.log([parked])
    await store.log(
        [replace(parked, status="expired", reason="too old", attempts=(), attempt_count=0, finished_at=AT)]
    )
    assert await store.get(parked.id) == replace(parked, status="expired", reason="too old", finished_at=AT)


async def test_one_batch_may_hold_all_of_it_and_the_same_one_again(database: Database) -> None:
    store = Deliveries(database)
    new = delivery("pending", [attempt(1)])
    settled = replace(new, status="dead", reason="400", finished_at=AT)
    many = [delivery("delivered", [replace(attempt(1, status_code=200), answer="")]) for _ in range(500)]
    await store.log([new, settled, *many, new, *many[:10]])
    assert await store.get(new.id) == settled
    assert await store.get(many[-1].id) == many[-1]
    async with database.read() as connection:
        assert await connection.scalar(text("SELECT count(*) FROM deliveries")) == 501


@pytest.mark.parametrize("size", [1, 500])
async def test_a_batch_costs_two_statements_whatever_its_size(database: Database, size: int) -> None:
    statements: list[str] = []
    event.listen(
        database.engine.sync_engine, "before_cursor_execute", lambda *args: statements.append(args[2])
    )
    await Deliveries(database).log([delivery("dead", [attempt(1), attempt(2)]) for _ in range(size)])
    assert len([each for each in statements if each.startswith("INSERT")]) == 2


async def test_nothing_is_a_batch_too(database: Database) -> None:
    await Deliveries(database).log([])
    assert (await Deliveries(database).page("ch_a", None, 10)).items == []


async def test_deliveries_are_listed_newest_first_and_filtered(database: Database) -> None:
    store = Deliveries(database)
    statuses: list[DeliveryStatus] = ["pending", "delivered", "dead", "expired"]
    made = [
        # Two at each moment, so that the id decides.
        delivery(
            statuses[n % 4], at=AT + timedelta(microseconds=n // 2), webhook=f"wh_{n % 3}", finished_at=None
        )
        for n in range(24)
    ]
    await store.log([*made, delivery("dead", channel_id="ch_b", conversation_key="ch_b/u")])
    made.sort(key=lambda each: (each.created_at, each.id), reverse=True)
    for status in (None, *statuses):
        for webhook in (None, "wh_1"):
            expected = [
                each.id
                for each in made
                if status in (None, each.status) and webhook in (None, each.webhook_id)
            ]
            found: list[str] = []
            cursor = None
            while True:
                page = await store.page("ch_a", cursor, 5, status=status, webhook_id=webhook)
                found += [each.id for each in page.items]
                cursor = page.next_cursor
                if cursor is None:
                    break
            assert found == expected


@pytest.mark.parametrize("delivery_id", ["none", "", "a\x00", "x" * 1000])
async def test_one_that_is_not_there_is_none(database: Database, delivery_id: str) -> None:
    assert await Deliveries(database).get(delivery_id) is None
    assert (await Deliveries(database).page(delivery_id, None, 10, webhook_id=delivery_id)).items == []


async def test_an_answer_may_hold_anything(database: Database) -> None:
    store = Deliveries(database)
    odd = replace(attempt(1), answer="a\x00\ud800🐘", detail="\x00")
    await store.log([dead := delivery("dead", [odd])])
    found = await store.get(dead.id)
    assert found is not None
    assert (found.attempts[0].answer, found.attempts[0].detail) == ("a\ufffd\ufffd🐘", "\ufffd")
