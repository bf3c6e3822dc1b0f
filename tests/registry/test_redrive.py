"""Redrive: what was given up waits again in its lane, in order, and no lane is left without its row."""

import asyncio
import re
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import event, exists, func, select, text, update

from broker.models.records import now
from broker.partitions import partition_of
from broker.registry import redrive as module
from broker.registry.backlog import Backlog, LaneToPark, LaneWorked
from broker.registry.channels import Channels
from broker.registry.conversations import Conversations, NewTurn
from broker.registry.database import Database
from broker.registry.deliveries import Deliveries
from broker.registry.history import History
from broker.registry.records import (
    Attempt,
    BacklogLane,
    Conversation,
    Delivery,
    DeliveryStatus,
    Turn,
    Webhook,
)
from broker.registry.redrive import Redrive, Redriven
from broker.registry.tables import backlog_lanes, deliveries
from broker.registry.webhooks import Webhooks

PARTITIONS = 8
AT = datetime(2026, 5, 4, 3, 2, 1, 123456, UTC)


@pytest.fixture
async def webhook(database: Database) -> Webhook:
    """A webhook of a channel."""
    channel, _ = await Channels(database).create("Shop", {"type": "echo"})
    made = await Webhooks(database).create(channel.id, url="https://example.com/")
    assert made is not None
    return made


@pytest.fixture
def redrive(database: Database) -> Redrive:
    return Redrive(database, PARTITIONS)


def attempts(count: int) -> tuple[Attempt, ...]:
    return tuple(Attempt(n, AT + timedelta(seconds=n), 20, 400, None, "", "no") for n in range(1, count + 1))


def given_up(
    webhook: Webhook, counter: int = 1, user: str = "u", status: DeliveryStatus = "dead", **changes: Any
) -> Delivery:
    return Delivery(
        **{
            "id": str(uuid4()),
            "webhook_id": webhook.id,
            "channel_id": webhook.channel_id,
            "conversation_key": f"{webhook.channel_id}/{user}",
            "user_id": user,
            "response_id": str(uuid4()),
            "message_counter": counter,
            "status": status,
            "reason": "the endpoint refused it",
            "attempt_count": 3,
            "created_at": AT + timedelta(seconds=counter),
            "finished_at": AT + timedelta(minutes=1),
            "response": {"text": "hello"},
            "attempts": attempts(3),
            **changes,
        }
    )


async def lanes_of(database: Database) -> list[Any]:
    async with database.read() as connection:
        return list(
            await connection.execute(select(backlog_lanes).order_by(backlog_lanes.c.conversation_key))
        )


async def waiting_in(database: Database, webhook: Webhook, user: str = "u") -> list[int]:
    lane = BacklogLane(webhook.id, f"{webhook.channel_id}/{user}", now())
    (head,) = await Backlog(database).heads([lane], 10_000)
    return [each.message_counter for each in head]


@pytest.mark.parametrize("status", ["dead", "expired"])
async def test_a_delivery_that_was_given_up_waits_again_and_keeps_its_attempts(
    database: Database, webhook: Webhook, redrive: Redrive, status: DeliveryStatus
) -> None:
    dead = given_up(webhook, status=status)
    await Deliveries(database).log([dead])
    began = now()
    redriven = await redrive.delivery(dead.id)
    assert isinstance(redriven, Delivery)
    assert (redriven.status, redriven.reason, redriven.finished_at) == ("pending", None, None)
    assert (redriven.attempt_count, redriven.attempts_before) == (3, 3)
    assert redriven.redriven_at is not None
    assert began <= redriven.redriven_at <= now()
    kept = await Deliveries(database).get(dead.id)
    assert kept is not None
    assert kept.attempts == dead.attempts
    (row,) = await lanes_of(database)
    assert row.partition == partition_of(dead.conversation_key, PARTITIONS)
    backlog = Backlog(database)
    assert await backlog.webhooks_of(row.partition) == {webhook.id}
    (lane,) = await backlog.claim({webhook.id: 10}, 60)
    assert await backlog.heads([lane], 10) == [[redriven]]


async def test_what_became_of_it_after_the_redrive_is_written_and_may_be_redriven_again(
    database: Database, webhook: Webhook, redrive: Redrive
) -> None:
    dead = given_up(webhook)
    await Deliveries(database).log([dead])
    for tries in (4, 5):
        await redrive.delivery(dead.id)
        (lane,) = await Backlog(database).claim({webhook.id: 1}, 60)
        ((pending,),) = await Backlog(database).heads([lane], 1)
        again = given_up(webhook, id=dead.id, attempt_count=tries, attempts=attempts(tries)[-1:])
        assert await Backlog(database).settle([LaneWorked(lane, [again], now(), None)]) == [True]
        kept = await Deliveries(database).get(dead.id)
        assert kept is not None
        assert (kept.status, kept.attempts_before, len(kept.attempts)) == ("dead", tries - 1, tries)
        assert kept.redriven_at == pending.redriven_at


async def test_what_cannot_be_redriven_is_told_apart_and_left_as_it_is(
    database: Database, webhook: Webhook, redrive: Redrive
) -> None:
    delivered = given_up(webhook, 1, status="delivered", reason=None, response=None)
    pending = given_up(webhook, 2, status="pending", reason=None, finished_at=None)
    orphan = given_up(webhook, 3, webhook_id="wh_gone")
    before = [delivered, pending, orphan]
    await Deliveries(database).log(before)
    kept = [await Deliveries(database).get(each.id) for each in before]
    assert [await redrive.delivery(each.id) for each in before] == ["delivered", "pending", "webhook deleted"]
    assert await redrive.delivery("nobody\x00") == "unknown"
    assert [await Deliveries(database).get(each.id) for each in before] == kept
    assert await lanes_of(database) == []


async def test_a_redriven_one_goes_before_what_waits_already_and_the_lane_is_due_at_once(
    database: Database, webhook: Webhook, redrive: Redrive
) -> None:
    dead = given_up(webhook, 4)
    behind = [given_up(webhook, n, status="pending", reason=None, finished_at=None) for n in (5, 6)]
    await Deliveries(database).log([dead])
    backlog = Backlog(database)
    await backlog.park([LaneToPark(0, behind, now() + timedelta(hours=2))])
    assert await backlog.claim({webhook.id: 1}, 60) == []
    await redrive.delivery(dead.id)
    assert await waiting_in(database, webhook) == [4, 5, 6]
    assert len(await backlog.claim({webhook.id: 1}, 60)) == 1


async def test_whoever_holds_a_lane_keeps_it_and_its_schedule(
    database: Database, webhook: Webhook, redrive: Redrive
) -> None:
    dead = given_up(webhook, 4)
    await Deliveries(database).log([dead])
    backlog = Backlog(database)
    five = given_up(webhook, 5, status="pending", reason=None, finished_at=None)
    await backlog.park([LaneToPark(0, [five], now())])
    (lane,) = await backlog.claim({webhook.id: 1}, 3600)
    (held,) = await lanes_of(database)
    await redrive.delivery(dead.id)
    assert await lanes_of(database) == [held]
    # The holder finds that the lane is not empty yet.
    done = given_up(webhook, 5, id=five.id)
    assert await backlog.settle([LaneWorked(lane, [done], now(), None)]) == [False]
    assert await waiting_in(database, webhook) == [4]


async def test_all_of_a_webhook_wait_again_in_lane_order_and_nobody_elses(
    database: Database, webhook: Webhook, redrive: Redrive, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "ROWS_A_PIECE", 7)
    other = await Webhooks(database).create(webhook.channel_id, url="https://example.com/other")
    assert other is not None
    users = ["ada", "bob", "ключ🐘"]
    mine = [
        given_up(webhook, n, user, status="dead" if n % 3 else "expired")
        for n in range(1, 13)
        for user in users
    ]
    theirs = [given_up(other, n) for n in range(1, 4)]
    arrived = given_up(webhook, 99, "ada", status="delivered", reason=None, response=None)
    await Deliveries(database).log([*mine[::-1], *theirs, arrived])
    assert await redrive.webhook(webhook.id) == Redriven(36, None)
    for user in users:
        assert await waiting_in(database, webhook, user) == list(range(1, 13))
    for each in [*theirs, arrived]:
        kept = await Deliveries(database).get(each.id)
        assert kept is not None
        assert (kept.status, kept.redriven_at) == (each.status, None)
    assert {lane.webhook_id for lane in await lanes_of(database)} == {webhook.id}
    assert await redrive.webhook(webhook.id) == Redriven(0, None)
    assert await redrive.webhook("wh_nobody") is None


async def test_no_transaction_takes_more_than_a_piece(
    database: Database, webhook: Webhook, redrive: Redrive, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "ROWS_A_PIECE", 10)
    await Deliveries(database).log([given_up(webhook, n) for n in range(1, 26)])
    counts: list[int] = []

    def count(connection: Any, cursor: Any, statement: str, *_: Any) -> None:
        if statement.startswith("UPDATE deliveries"):
            counts.append(cursor.rowcount)

    event.listen(database.engine.sync_engine, "after_cursor_execute", count)
    assert await redrive.webhook(webhook.id) == Redriven(25, None)
    assert counts == [10, 10, 5]


async def test_since_looks_at_when_it_was_said(
    database: Database, webhook: Webhook, redrive: Redrive
) -> None:
    await Deliveries(database).log([given_up(webhook, n) for n in range(1, 11)])
    assert await redrive.webhook(webhook.id, since=AT + timedelta(seconds=7)) == Redriven(4, None)
    assert await waiting_in(database, webhook) == [7, 8, 9, 10]


async def test_places_lead_through_all_of_it_once_also_where_everything_dies_again(
    database: Database, webhook: Webhook, redrive: Redrive
) -> None:
    dead = [given_up(webhook, n, user) for n in range(1, 6) for user in ("ada", "bob")]
    await Deliveries(database).log(dead)
    counts, place = [], None
    for _ in range(20):
        redriven = await redrive.webhook(webhook.id, after=place, limit=4)
        assert redriven is not None
        counts.append(redriven.count)
        async with database.write() as connection:
            await connection.execute(update(deliveries).values(status="dead"))
        place = redriven.last
        if place is None:
            break
    assert counts == [4, 4, 2]


async def test_those_of_a_disabled_webhook_wait_until_it_is_enabled(
    database: Database, webhook: Webhook, redrive: Redrive
) -> None:
    await Deliveries(database).log([given_up(webhook)])
    await Webhooks(database).update(webhook.id, {"enabled": False})
    assert await redrive.webhook(webhook.id) == Redriven(1, None)
    backlog = Backlog(database)
    assert await backlog.due() == []
    await Webhooks(database).update(webhook.id, {"enabled": True})
    assert await backlog.due() == [webhook.id]


async def test_a_lane_that_goes_live_at_that_moment_keeps_its_row_where_something_waits(
    database: Database, webhook: Webhook, redrive: Redrive
) -> None:
    # Without its row nobody would ever look for what is pending in a lane.
    backlog, store = Backlog(database), Deliveries(database)
    orphans = select(func.count()).where(
        deliveries.c.status == "pending",
        ~exists().where(
            backlog_lanes.c.webhook_id == deliveries.c.webhook_id,
            backlog_lanes.c.conversation_key == deliveries.c.conversation_key,
        ),
    )
    for number in range(40):
        user = f"u{number}"
        last = given_up(webhook, 2, user, status="pending", reason=None, finished_at=None)
        dead = given_up(webhook, 1, user)
        await store.log([dead])
        await backlog.park([LaneToPark(0, [last], now())])
        lane = BacklogLane(webhook.id, last.conversation_key, now())
        done = given_up(webhook, 2, user, id=last.id)
        await asyncio.gather(
            backlog.settle([LaneWorked(lane, [done], now(), None)]), redrive.delivery(dead.id)
        )
    async with database.read() as connection:
        assert await connection.scalar(orphans) == 0


async def test_redrives_at_the_same_time_redrive_each_once(
    database: Database, webhook: Webhook, redrive: Redrive, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "ROWS_A_PIECE", 5)
    dead = [given_up(webhook, n, f"u{n % 4}") for n in range(40)]
    await Deliveries(database).log(dead)
    outcomes = await asyncio.gather(
        redrive.delivery(dead[0].id),
        redrive.delivery(dead[0].id),
        redrive.webhook(webhook.id),
        redrive.webhook(webhook.id),
    )
    ones = [each for each in outcomes[:2] if isinstance(each, Delivery)]
    alls = [each.count for each in outcomes[2:] if isinstance(each, Redriven)]
    assert len(ones) + sum(alls) == 40
    assert [each for each in outcomes[:2] if isinstance(each, str)] == ["pending"] * (2 - len(ones))
    async with database.read() as connection:
        found = await connection.execute(select(deliveries.c.attempts_before, deliveries.c.status))
        assert {tuple(row) for row in found} == {(3, "pending")}


async def test_the_given_up_ones_are_found_by_their_index(
    database: Database, webhook: Webhook, redrive: Redrive
) -> None:
    statements: list[tuple[str, Any]] = []
    event.listen(
        database.engine.sync_engine,
        "before_cursor_execute",
        lambda _, cursor, statement, parameters, *rest: statements.append((statement, parameters)),
    )
    await redrive.webhook(webhook.id, since=AT)
    [(query, parameters)] = [each for each in statements if "UNION ALL" in each[0]]
    explain = "EXPLAIN QUERY PLAN " if database.dialect == "sqlite" else "EXPLAIN "
    async with database.write() as connection:
        if database.dialect == "postgresql":
            await connection.execute(text("SET LOCAL enable_seqscan = off"))
        plans = [str(row) for row in await connection.exec_driver_sql(explain + query, parameters)]
    # By their status too, or all that was delivered would be read.
    by_status = [each for each in plans if re.search(r"webhook_id\W.*AND .*status\)?(::text)? ?=", each)]
    assert len(by_status) == 2, plans


async def test_only_the_turn_of_a_message_that_was_not_answered_is_forgotten(
    database: Database, webhook: Webhook, redrive: Redrive
) -> None:
    key = f"{webhook.channel_id}/u"

    def turn(number: int, outcome: Any) -> NewTurn:
        message_id = f"message-{number}"
        made = Turn(message_id, key, webhook.channel_id, number, {}, [], outcome, True, AT)
        return NewTurn(made, Conversation(key, webhook.channel_id, "u", b"{}", 0, number))

    conversations = Conversations(database)
    assert await conversations.commit([turn(1, "failed")]) == [True]
    assert await conversations.commit([turn(2, "answered")]) == [True]
    assert await redrive.forget_failed_turn("message-1")
    assert not await redrive.forget_failed_turn("message-1")
    assert not await redrive.forget_failed_turn("message-2")
    page = await History(database).turns(key, None, 10)
    assert [each.message_id for each in page.items] == ["message-2"]
    # The conversation goes on counting, and its next turn is written.
    assert await conversations.commit([turn(3, "answered")]) == [True]
