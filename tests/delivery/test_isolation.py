"""One broken endpoint is nobody else's problem: breaker, spill, pace, time to live, auto-disable, fair draining."""

import asyncio
import time
from datetime import timedelta

import pytest
from delivery_worker_parts import Worker, until
from sqlalchemy import update

from broker.models.records import now
from broker.registry.expiry import Expiry
from broker.registry.records import Webhook
from broker.registry.tables import deliveries
from consumers.expiring import Sweeper
from consumers.retry import Policy, Schedule


async def hook(worker: Worker, **more: object) -> Webhook:
    created = await worker.webhooks.create(worker.channel.id, url="https://example.com")
    assert created is not None
    if not more:
        return created
    changed = await worker.webhooks.update(created.id, more)
    assert changed is not None
    return changed


def users(count: int) -> list[str]:
    return [f"user-{number:03}" for number in range(count)]


async def test_an_open_breaker_sends_new_messages_to_the_backlog_untried_and_one_probe_ends_it(
    worker: Worker,
) -> None:
    bad = await hook(worker)
    worker.endpoint.failing[bad.id] = 503
    session = worker.session()
    await session.take([one for user in users(40) for one in worker.says(user)])
    await worker.queue.until(40)
    gate = worker.gates.known(bad.id)
    assert gate is not None
    assert not gate.breaker.closed
    tried = len(worker.endpoint.tried)
    assert tried < 80, "most of them saw the breaker open before their second attempt"
    await session.take([one for user in users(40) for one in worker.says(user)])
    await worker.queue.until(80)
    assert len(worker.endpoint.tried) <= tried + 2, "at most a probe was made"
    worker.endpoint.failing.clear()
    drainer = worker.drainer()
    await worker.endpoint.until(80)
    for user in users(40):
        assert worker.order(bad.id, user) == [1, 2]
    assert gate.breaker.closed
    worker.stop.set()
    await drainer
    await session.stop(1)


async def test_what_a_hanging_webhook_holds_spills_and_the_partition_goes_on(worker: Worker) -> None:
    hanging, good = await hook(worker), await hook(worker)
    worker.endpoint.hanging.add(hanging.id)
    session = worker.holding(60).session()
    await session.take([one for user in users(60) for one in worker.says(user)])
    await worker.endpoint.until(60)
    # So many wait that the others' messages find no room in the prefetch: they leave memory, untried.
    await until(lambda: len(worker.queue.acked) >= 60 - 16, "all but those in flight are acknowledged")
    assert {user for _, user in await worker.parked()} <= {
        f"{worker.channel.id}/{user}" for user in users(60)
    }
    assert {webhook for webhook, _ in await worker.parked()} == {hanging.id}
    for user in users(60):
        assert worker.order(good.id, user) == [1]
    await session.stop(0)


async def test_many_webhooks_with_one_url_are_no_way_around_the_limit_of_each(worker: Worker) -> None:
    url = "https://one.example/hook"
    many = [await worker.webhooks.create(worker.channel.id, url=url) for _ in range(80)]
    worker.endpoint.hanging.update(each.id for each in many if each is not None)
    good = await hook(worker)
    session = worker.holding(60).session()
    await session.take([one for user in users(40) for one in worker.says(user)])
    await until(lambda: all(worker.order(good.id, user) == [1] for user in users(40)), "the good one has all")
    # What waits for the server leaves memory: the messages hold up others.
    await worker.queue.until(1)
    assert worker.endpoint.most_in_flight[url] <= 128, "as many as one server may have"
    await session.stop(0)


async def test_an_endpoint_that_only_takes_its_time_gets_all_its_places(worker: Worker) -> None:
    slow = await hook(worker)
    # A little more than the second after which an attempt waits on without a place of the worker.
    worker.endpoint.takes_s[slow.id] = 1.03
    session = worker.session()
    await session.take([one for user in users(45) for one in worker.says(user)])
    await until(lambda: worker.endpoint.in_flight[slow.url] == 16, "all its places are in use")
    worker.endpoint.takes_s.clear()
    await worker.queue.until(45)
    assert len(worker.endpoint.delivered) == 45
    await session.stop(1)


async def test_a_pace_is_kept_and_holds_up_nobody_else(worker: Worker) -> None:
    slow, quick = await hook(worker, rate_limit=50.0), await hook(worker)
    session = worker.session()
    began = time.monotonic()
    await session.take([one for user in users(45) for one in worker.says(user)])
    await until(lambda: sum(w == quick.id for w, _, _ in worker.endpoint.delivered) == 45, "the quick one")
    quick_s = time.monotonic() - began
    await worker.endpoint.until(90)
    slow_s = time.monotonic() - began
    # 45 at 50 a second, of which the first few at once.
    assert slow_s >= 0.7
    assert quick_s < slow_s
    assert len(worker.endpoint.delivered) == 90
    assert slow.rate_limit == 50.0
    await session.stop(1)


@pytest.mark.parametrize("rate", [5e-324, 0.02])
async def test_a_pace_that_is_too_slow_is_cured_by_changing_it_for_those_who_wait_too(
    worker: Worker, rate: float
) -> None:
    # The API refuses the first; a registry may hold it all the same.
    slow = await hook(worker, rate_limit=rate)
    session = worker.session()
    await session.take([one for user in users(3) for one in worker.says(user)])
    await worker.endpoint.until(1)
    await worker.queue.until(3)
    assert not session.failed.done()
    drainer = worker.drainer()
    await worker.webhooks.update(slow.id, {"rate_limit": 100.0})
    await worker.endpoint.until(3)
    for user in users(3):
        assert worker.order(slow.id, user) == [1]
    worker.stop.set()
    await drainer
    await session.stop(1)


async def test_what_waits_for_its_turn_goes_by_the_webhook_as_it_is_then(worker: Worker) -> None:
    slow = await hook(worker, rate_limit=0.11)
    session = worker.session()
    await session.take([one for user in users(2) for one in worker.says(user)])
    await worker.endpoint.until(1)
    await worker.webhooks.update(slow.id, {"enabled": False})
    await worker.queue.until(2)
    assert len(worker.endpoint.delivered) == 1, "a disabled webhook gets nothing more"
    assert len(await worker.parked()) == 1
    await session.stop(1)


async def test_an_answer_that_outlived_its_time_is_kept_as_expired_and_never_arrives(worker: Worker) -> None:
    bad = await hook(worker, time_to_live_s=0.2)
    worker.endpoint.failing[bad.id] = 500
    session = worker.session()
    await session.take(worker.says("ada", 2))
    drainer = worker.drainer()
    expired = await worker.logged("expired", 2)
    kept = await worker.deliveries.get(expired[0])
    assert kept is not None
    assert "time to live of 0.2 s" in (kept.reason or "")
    assert kept.response is not None, "it can be redriven"
    worker.endpoint.failing.clear()
    await session.take(worker.says("ada"))
    await worker.endpoint.until(1)
    assert worker.order(bad.id, "ada") == [3]
    worker.stop.set()
    await drainer
    await session.stop(1)


async def test_what_waits_for_a_disabled_webhook_expires_too_and_what_is_young_enough_arrives(
    worker: Worker,
) -> None:
    gone = await hook(worker)
    worker.endpoint.failing[gone.id] = 410
    session = worker.session()
    await session.take([*worker.says("ada", 3), *worker.says("bob", 2)])
    await worker.queue.until(5)
    database = worker.backlog._db
    async with database.write() as connection:
        old = deliveries.c.conversation_key == f"{worker.channel.id}/bob"
        await connection.execute(update(deliveries).where(old).values(created_at=now() - timedelta(hours=2)))
    await Sweeper(Expiry(database), Policy(Schedule(), 3600.0)).sweep(worker.stop)
    assert len(await worker.logged("expired", 2)) == 2
    assert await worker.parked() == {(gone.id, f"{worker.channel.id}/ada")}
    worker.endpoint.failing.clear()
    await worker.webhooks.update(gone.id, {"enabled": True})
    drainer = worker.drainer()
    await worker.endpoint.until(3)
    assert worker.order(gone.id, "ada") == [1, 2, 3]
    assert worker.order(gone.id, "bob") == []
    worker.stop.set()
    await drainer
    await session.stop(1)


async def test_a_webhook_that_has_only_failed_for_five_days_is_disabled_and_says_so(worker: Worker) -> None:
    bad, recovered = await hook(worker), await hook(worker)
    for each in (bad, recovered):
        await worker.webhooks.note_failing(each.id, now() - timedelta(days=5, hours=1))
    worker.endpoint.failing[bad.id] = 500
    session = worker.session()
    await session.take(worker.says("ada"))
    await worker.queue.until(1)

    async def standing() -> tuple[Webhook | None, Webhook | None]:
        return await worker.webhooks.get(bad.id), await worker.webhooks.get(recovered.id)

    async with asyncio.timeout(10):
        while True:
            one, other = await standing()
            assert one is not None
            assert other is not None
            if not one.enabled and other.failing_since is None:
                break
    assert "5 days" in (one.disabled_reason or "")
    assert other.enabled
    # Its messages are kept, and come in order when it is enabled.
    await session.take(worker.says("ada", 2))
    worker.endpoint.failing.clear()
    await worker.queue.until(3)
    await worker.webhooks.update(bad.id, {"enabled": True})
    again = await worker.webhooks.get(bad.id)
    assert again is not None
    assert again.failing_since is None, "enabling begins the five days anew"
    drainer = worker.drainer()
    await until(lambda: worker.order(bad.id, "ada") == [1, 2, 3], "what waited has come")
    worker.stop.set()
    await drainer
    await session.stop(1)


async def test_a_webhooks_own_schedule_counts(worker: Worker) -> None:
    bad = await hook(worker, retry_schedule=[0.01])
    worker.endpoint.failing[bad.id] = 500
    session = worker.session()
    await session.take(worker.says("ada"))
    (dead,) = await worker.logged("dead", 1)
    kept = await worker.deliveries.get(dead)
    assert kept is not None
    assert len(kept.attempts) == 2
    await session.stop(1)


async def test_a_webhook_with_a_large_backlog_does_not_keep_the_drainer_from_another(worker: Worker) -> None:
    large, small = await hook(worker), await hook(worker)
    worker.endpoint.failing.update({large.id: 503, small.id: 503})
    session = worker.session()
    await session.take([one for user in users(200) for one in worker.says(user)])
    await worker.queue.until(200)
    # The large one hangs now: all of the room that it gets is held.
    worker.endpoint.failing.clear()
    worker.endpoint.hanging.add(large.id)
    await worker.backlog.wake(large.id)
    await worker.backlog.wake(small.id)
    drainer = worker.drainer()
    await until(lambda: sum(w == small.id for w, _, _ in worker.endpoint.delivered) == 200, "the small one")
    worker.endpoint.hanging.clear()
    drainer.cancel()
    await asyncio.gather(drainer, return_exceptions=True)
    await session.stop(0)
