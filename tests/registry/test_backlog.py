"""The backlog: lanes are parked, appended to, read and settled many at a time, each as if it were alone."""

import asyncio
import random
from dataclasses import replace
from datetime import timedelta
from uuid import uuid4

import pytest
from sqlalchemy import event

from broker.models.records import now
from broker.registry.backlog import Backlog, LaneToPark, LaneWorked
from broker.registry.database import Database
from broker.registry.deliveries import Deliveries
from broker.registry.records import BacklogLane, Delivery, DeliveryStatus

WEBHOOK = "wh_a"


def delivery(user: str, counter: int, status: DeliveryStatus = "pending", webhook: str = WEBHOOK) -> Delivery:
    return Delivery(
        id=str(uuid4()),
        webhook_id=webhook,
        channel_id="ch_a",
        conversation_key=f"ch_a/{user}",
        user_id=user,
        response_id=str(uuid4()),
        message_counter=counter,
        status=status,
        reason=None,
        attempt_count=0,
        created_at=now(),
        finished_at=None,
        response={"said": counter},
    )


def parked(user: str, *counters: int, webhook: str = WEBHOOK, wait_s: float = 0.0) -> LaneToPark:
    waiting = [delivery(user, counter, webhook=webhook) for counter in counters]
    return LaneToPark(3, waiting, now() + timedelta(seconds=wait_s))


def delivered(waiting: Delivery) -> Delivery:
    changes = {"status": "delivered", "response": None, "finished_at": now(), "attempt_count": 1}
    return Delivery(**{name: changes.get(name, getattr(waiting, name)) for name in waiting.__slots__})


def lane(user: str, webhook: str = WEBHOOK) -> BacklogLane:
    return BacklogLane(webhook, f"ch_a/{user}", now())


@pytest.fixture
def backlog(database: Database) -> Backlog:
    return Backlog(database)


async def counters(backlog: Backlog, *lanes: BacklogLane, most: int = 100) -> list[list[int]]:
    return [[each.message_counter for each in head] for head in await backlog.heads(lanes, most)]


async def test_many_lanes_are_parked_at_once_and_read_in_order(backlog: Backlog) -> None:
    await backlog.park([parked("u1", 1, 2), parked("u2", 7), parked("u1", 4, webhook="wh_b")])
    await backlog.park([parked("u1", 3), parked("u3", 1)])
    assert await backlog.webhooks_of(3) == {WEBHOOK, "wh_b"}
    wanted = lane("u2"), lane("u1"), lane("nobody"), lane("u1", "wh_b"), lane("u1")
    assert await counters(backlog, *wanted) == [[7], [1, 2, 3], [], [4], [1, 2, 3]]
    assert await counters(backlog, *wanted, most=2) == [[7], [1, 2], [], [4], [1, 2]]


async def test_a_page_of_a_lane_is_bounded_by_bytes_too_and_has_at_least_its_first(backlog: Backlog) -> None:
    waiting = [replace(delivery("u1", counter), response={"said": "x" * 100_000}) for counter in range(1, 8)]
    await backlog.park([LaneToPark(3, waiting, now()), parked("u2", 1, 2, 3)])
    assert await counters(backlog, lane("u1"), lane("u2")) == [[1, 2], [1, 2, 3]]
    huge = replace(delivery("u3", 1), response={"said": "x" * 500_000})
    await backlog.park([LaneToPark(3, [huge, delivery("u3", 2)], now())])
    assert await counters(backlog, lane("u3")) == [[1]]


async def test_a_lane_that_is_there_keeps_its_schedule(backlog: Backlog) -> None:
    await backlog.park([parked("u1", 1, wait_s=3600)])
    await backlog.park([parked("u1", 2), parked("u2", 1)])
    assert [each.conversation_key for each in await backlog.claim({WEBHOOK: 10}, 60)] == ["ch_a/u2"]


async def test_only_lanes_in_the_backlog_are_appended_to(backlog: Backlog, database: Database) -> None:
    await backlog.park([parked("u1", 1), parked("u3", 1)])
    groups = [[delivery("u2", 1)], [delivery("u1", 2), delivery("u1", 3)], [delivery("u3", 2)]]
    assert await backlog.append(groups) == [False, True, True]
    assert await counters(backlog, lane("u1"), lane("u2"), lane("u3")) == [[1, 2, 3], [], [1, 2]]
    assert await Deliveries(database).get(groups[0][0].id) is None


async def test_lanes_are_settled_each_by_what_is_left_of_it(backlog: Backlog, database: Database) -> None:
    await backlog.park(
        [parked("done", 1), parked("held", 1, 2), parked("let go", 1, 2), parked("untouched", 1)]
    )
    claimed = {each.conversation_key: each for each in await backlog.claim({WEBHOOK: 10}, 60)}
    assert await backlog.claim({WEBHOOK: 10}, 60) == []
    heads = dict(zip(claimed, await backlog.heads(list(claimed.values()), 1), strict=True))
    worked = [
        LaneWorked(claimed["ch_a/held"], [delivered(heads["ch_a/held"][0])], now(), 60),
        LaneWorked(claimed["ch_a/done"], [delivered(heads["ch_a/done"][0])], now(), 60),
        LaneWorked(claimed["ch_a/let go"], [delivered(heads["ch_a/let go"][0])], now(), None),
    ]
    assert await backlog.settle(worked) == [False, True, False]
    assert await counters(backlog, lane("held"), lane("done"), lane("let go")) == [[2], [], [2]]
    assert [each.conversation_key for each in await backlog.claim({WEBHOOK: 10}, 60)] == ["ch_a/let go"]
    assert await backlog.append([[delivery("done", 2)]]) == [False]
    kept = await Deliveries(database).get(worked[1].done[0].id)
    assert kept is not None
    assert kept.status == "delivered"


async def test_a_lane_waits_until_its_next_attempt(backlog: Backlog) -> None:
    await backlog.park([parked("u1", 1)])
    (claimed,) = await backlog.claim({WEBHOOK: 1}, 60)
    later = LaneWorked(claimed, [], now() + timedelta(hours=1), None)
    assert await backlog.settle([later]) == [False]
    assert await backlog.due() == []
    await backlog.wake(WEBHOOK)
    assert await backlog.due() == [WEBHOOK]


@pytest.mark.parametrize("size", [1, 100])
async def test_the_number_of_statements_does_not_grow_with_the_lanes(
    backlog: Backlog, database: Database, size: int
) -> None:
    statements: list[str] = []
    users = [f"u{number}" for number in range(size)]
    lanes = [lane(user) for user in users]
    event.listen(
        database.engine.sync_engine, "before_cursor_execute", lambda *args: statements.append(args[2])
    )
    await backlog.park([parked(user, 1, 2) for user in users])
    await backlog.append([[delivery(user, 3)] for user in users])
    heads = [] if database.dialect == "sqlite" else await backlog.heads(lanes, 10)
    done = [LaneWorked(each, [], now(), None) for each in lanes]
    await backlog.settle(done)
    assert len([each for each in statements if not each.startswith("BEGIN")]) <= 10, statements
    assert len(heads) in (0, size)


async def test_whoever_does_these_things_at_the_same_time_loses_nothing(backlog: Backlog) -> None:
    # The same lanes in another order each time: nobody waits in a circle.
    users = [f"u{number}" for number in range(20)]
    said = dict.fromkeys(users, 0)
    seen: dict[str, list[int]] = {user: [] for user in users}
    dice = random.Random(7)

    def next_of(user: str) -> Delivery:
        said[user] += 1
        return delivery(user, said[user])

    async def fill() -> None:
        for _ in range(15):
            some = [[next_of(user)] for user in dice.sample(users, 8)]
            there = await backlog.append(some)
            new = [waiting for waiting, is_there in zip(some, there, strict=True) if not is_there]
            if new:
                await backlog.park([LaneToPark(3, waiting, now()) for waiting in new])

    async def drain() -> None:
        while not all(len(seen[user]) == said[user] for user in users) or not filling.done():
            claimed = await backlog.claim({WEBHOOK: 6}, 60)
            dice.shuffle(claimed)
            heads = await backlog.heads(claimed, 5)
            for head in heads:
                for each in head:
                    seen[each.user_id].append(each.message_counter)
            if claimed:
                await backlog.settle(
                    [
                        LaneWorked(each, [delivered(one) for one in head], now(), None)
                        for each, head in zip(claimed, heads, strict=True)
                    ]
                )

    filling = asyncio.create_task(fill())
    await asyncio.gather(filling, drain(), drain())
    assert seen == {user: list(range(1, said[user] + 1)) for user in users}
    assert await backlog.webhooks_of(3) == set()
