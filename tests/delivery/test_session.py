"""A delivery worker's session: order, parking, going live again, and what is kept of it all."""

import asyncio
from dataclasses import replace

import pytest
from delivery_worker_parts import Worker, counted_reads, until

from broker.port import Envelope
from consumers.dead_letters import REASON, STAGE
from consumers.shares import SHORT_FROM


async def test_each_webhook_gets_each_conversation_in_order_and_all_is_acknowledged_and_logged(
    worker: Worker,
) -> None:
    hooks = [await worker.webhooks.create(worker.channel.id, url="https://example.com") for _ in range(3)]
    session = worker.session()
    for _ in range(10):
        await session.take([*worker.says("ada", 2), *worker.says("bob")])
    await worker.queue.until(30)
    for hook in hooks:
        assert hook is not None
        assert worker.order(hook.id, "ada") == list(range(1, 21))
        assert worker.order(hook.id, "bob") == list(range(1, 11))
    for delivery in await worker.logged("delivered", 90):
        kept = await worker.deliveries.get(delivery)
        assert kept is not None
        assert [(attempt.number, attempt.status_code) for attempt in kept.attempts] == [(1, 200)]
    await session.stop(1)


async def test_a_response_that_was_published_twice_is_delivered_once_and_both_are_acknowledged(
    worker: Worker,
) -> None:
    hook = await worker.webhooks.create(worker.channel.id, url="https://example.com")
    assert hook is not None
    session = worker.session()
    said = worker.says("ada", 3)
    copies = [replace(envelope, tag=envelope.tag + 100) for envelope in said]
    await session.take([said[0], copies[0], said[1], said[2], copies[1]])
    await session.take([copies[2], *worker.says("ada")])
    await worker.queue.until(7)
    assert worker.order(hook.id, "ada") == [1, 2, 3, 4]
    await session.stop(1)


async def test_a_webhook_gets_only_the_events_that_it_asked_for(worker: Worker) -> None:
    text = await worker.webhooks.create(
        worker.channel.id, url="https://example.com", events=["response.text"]
    )
    other = await worker.webhooks.create(
        worker.channel.id, url="https://example.com", events=["response.media"]
    )
    assert text is not None
    assert other is not None
    session = worker.session()
    await session.take(worker.says("ada", 3))
    await worker.queue.until(3)
    assert worker.order(text.id, "ada") == [1, 2, 3]
    assert worker.order(other.id, "ada") == []
    await session.stop(1)


async def test_a_webhook_registered_before_the_bot_answered_gets_the_answer(worker: Worker) -> None:
    session = worker.session()
    await session.take(worker.says("ada", revision=1))
    await worker.queue.until(1)
    hook = await worker.webhooks.create(worker.channel.id, url="https://example.com")
    assert hook is not None
    channel = await worker.channels.get(worker.channel.id)
    assert channel is not None
    await session.take(worker.says("ada", revision=channel.revision))
    await worker.queue.until(2)
    assert worker.order(hook.id, "ada") == [2]
    await session.stop(1)


async def test_a_failing_lane_is_parked_and_drained_in_order_while_others_go_on(worker: Worker) -> None:
    bad = await worker.webhooks.create(worker.channel.id, url="https://bad.example")
    good = await worker.webhooks.create(worker.channel.id, url="https://good.example")
    assert bad is not None
    assert good is not None
    worker.endpoint.failing[bad.id] = 503
    session = worker.session()
    await session.take(worker.says("ada", 20))
    await worker.queue.until(20)
    assert worker.order(good.id, "ada") == list(range(1, 21))
    assert worker.order(bad.id, "ada") == []
    assert await worker.parked() == {(bad.id, f"{worker.channel.id}/ada")}
    # What comes while it is parked goes behind the others, also once the endpoint is well again.
    worker.endpoint.failing.clear()
    await session.take(worker.says("ada", 5))
    await worker.queue.until(25)
    assert worker.order(bad.id, "ada") == []
    drainer = worker.drainer()
    await worker.endpoint.until(50)
    assert worker.order(bad.id, "ada") == list(range(1, 26))
    await worker.logged("delivered", 50)
    while await worker.parked():
        pass
    # The lane is live again: the next one goes straight through.
    await session.take(worker.says("ada", 3))
    await worker.queue.until(28)
    assert worker.order(bad.id, "ada") == list(range(1, 29))
    worker.stop.set()
    await drainer
    await session.stop(1)


async def test_the_next_holder_of_a_partition_puts_new_messages_behind_what_was_parked(
    worker: Worker,
) -> None:
    hook = await worker.webhooks.create(worker.channel.id, url="https://example.com")
    assert hook is not None
    worker.endpoint.failing[hook.id] = 500
    first = worker.session()
    await first.take(worker.says("ada", 3))
    await worker.queue.until(3)
    await first.stop(1)
    worker.endpoint.failing.clear()
    second = worker.session()
    await second.take(worker.says("ada", 3))
    await worker.queue.until(6)
    assert worker.order(hook.id, "ada") == []
    drainer = worker.drainer()
    await worker.endpoint.until(6)
    assert worker.order(hook.id, "ada") == [1, 2, 3, 4, 5, 6]
    worker.stop.set()
    await drainer
    await second.stop(1)


async def test_endpoints_that_hang_hold_up_no_other(worker: Worker) -> None:
    hooks = [await worker.webhooks.create(worker.channel.id, url="https://example.com") for _ in range(4)]
    good, *hanging = [hook.id for hook in hooks if hook is not None]
    worker.endpoint.hanging.update(hanging)
    session = worker.session()
    users = [f"user-{number}" for number in range(100)]
    await session.take([envelope for user in users for envelope in worker.says(user, 2)])
    await worker.endpoint.until(200)
    for user in users:
        assert worker.order(good, user) == [1, 2]
    await session.stop(0)


async def test_channels_that_are_met_together_are_looked_up_together(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    envelopes, made = [], []
    for number in range(100):
        channel, _ = await worker.channels.create(f"c{number}", {"type": "echo"})
        assert await worker.webhooks.create(channel.id, url="https://example.com")
        envelopes += replace(worker, channel=channel).says(f"user-{number}", 2)
        made.append(channel.id)
    reads = counted_reads(monkeypatch)
    session = worker.session()
    await session.take(envelopes)
    await worker.endpoint.until(200)
    assert sorted(each for read_once in reads for each in set(read_once)) == sorted(made)
    assert len(reads) <= 2
    await session.stop(2)


async def test_a_failing_webhook_that_crowds_the_partition_goes_to_the_backlog_at_once(
    worker: Worker,
) -> None:
    hook = await worker.webhooks.create(worker.channel.id, url="https://example.com")
    assert hook is not None
    worker.endpoint.failing[hook.id] = 500
    # Fewer than make the breaker open.
    prefetch = 36
    session = worker.patient(30.0, 30.0).holding(prefetch).session()
    # Too few to be in anyone's way: tried again from memory.
    few = prefetch // SHORT_FROM
    await session.take([one for number in range(few) for one in worker.says(f"early-{number}")])
    await until(lambda: len(worker.endpoint.tried) == few, "each was tried")
    assert await worker.parked() == set()
    users = [f"user-{number}" for number in range(20)]
    await session.take([envelope for user in users for envelope in worker.says(user)])
    await worker.queue.until(20)
    assert await worker.parked() == {(hook.id, f"{worker.channel.id}/{user}") for user in users}
    assert len(worker.endpoint.tried) == few, (
        "whoever is known to fail is not tried with what is in the others' way"
    )
    await session.stop(0)


async def test_few_large_messages_crowd_the_partition_as_many_small_ones_do(worker: Worker) -> None:
    hook = await worker.webhooks.create(worker.channel.id, url="https://example.com")
    assert hook is not None
    worker.endpoint.failing[hook.id] = 500
    session = worker.patient(30.0, 30.0).session()
    large = [
        replace(envelope, body=envelope.body.replace(b'"text":"1"', b'"text":"%b"' % (b"x" * 240_000)))
        for user in ("ada", "bea", "cyd")
        for envelope in worker.says(user)
    ]
    await session.take(large[:1])
    async with asyncio.timeout(5):
        while not worker.endpoint.tried:
            await worker.endpoint.changed.wait()
    assert await worker.parked() == set()
    await session.take(large[1:])
    await worker.queue.until(2)
    assert await worker.parked() == {(hook.id, f"{worker.channel.id}/{user}") for user in ("bea", "cyd")}
    await session.stop(0)


async def test_a_poison_message_is_given_up_with_its_attempts_and_its_lane_goes_on(worker: Worker) -> None:
    hook = await worker.webhooks.create(worker.channel.id, url="https://example.com")
    assert hook is not None
    worker.endpoint.failing[hook.id] = 400
    session = worker.session()
    await session.take(worker.says("ada", 1))
    drainer = worker.drainer()
    (dead,) = await worker.logged("dead", 1)
    kept = await worker.deliveries.get(dead)
    assert kept is not None
    assert kept.response is not None
    assert kept.response["message"] == {"text": "1"}
    assert [attempt.status_code for attempt in kept.attempts] == [400, 400, 400]
    assert {attempt.answer for attempt in kept.attempts} == {"answer"}
    assert "400" in (kept.reason or "")
    worker.endpoint.failing.clear()
    await session.take(worker.says("ada", 2))
    await worker.endpoint.until(2)
    assert worker.order(hook.id, "ada") == [2, 3]
    worker.stop.set()
    await drainer
    await session.stop(1)


async def test_410_disables_the_webhook_and_enabling_it_delivers_what_waited_in_order(worker: Worker) -> None:
    hook = await worker.webhooks.create(worker.channel.id, url="https://example.com")
    assert hook is not None
    worker.endpoint.failing[hook.id] = 410
    session = worker.session()
    await session.take(worker.says("ada", 4))
    await worker.queue.until(4)
    disabled = await worker.webhooks.get(hook.id)
    assert disabled is not None
    assert not disabled.enabled
    assert "410" in (disabled.disabled_reason or "")
    worker.endpoint.failing.clear()
    drainer = worker.drainer()
    assert await worker.backlog.due() == []
    assert await worker.backlog.claim({hook.id: 10}, 1) == []
    await worker.webhooks.update(hook.id, {"enabled": True})
    await worker.endpoint.until(4)
    assert worker.order(hook.id, "ada") == [1, 2, 3, 4]
    worker.stop.set()
    await drainer
    await session.stop(1)


async def test_what_waits_for_a_deleted_webhook_is_kept_as_dead(worker: Worker) -> None:
    hook = await worker.webhooks.create(worker.channel.id, url="https://example.com")
    assert hook is not None
    worker.endpoint.failing[hook.id] = 500
    session = worker.session()
    await session.take(worker.says("ada", 3))
    await worker.queue.until(3)
    await worker.webhooks.delete(hook.id)
    worker.shared.directory.forget(worker.channel.id)
    drainer = worker.drainer()
    assert len(await worker.logged("dead", 3)) == 3
    worker.stop.set()
    await drainer
    await session.stop(1)


@pytest.mark.parametrize("body", [b"", b"not JSON", b"{}", b'{"schemaVersion": 99}', b"\xff" * 10])
async def test_rubbish_becomes_a_dead_letter_and_the_partition_goes_on(worker: Worker, body: bytes) -> None:
    hook = await worker.webhooks.create(worker.channel.id, url="https://example.com")
    assert hook is not None
    session = worker.session()
    await session.take([Envelope("rubbish", body), *worker.says("ada")])
    await worker.queue.until(2)
    (letter,) = worker.graveyard.published
    assert letter.body == body
    assert letter.headers[STAGE] == "delivery"
    assert letter.headers[REASON]
    assert worker.order(hook.id, "ada") == [1]
    await session.stop(1)


async def test_a_deleted_channels_responses_become_dead_letters(worker: Worker) -> None:
    session = worker.session()
    await worker.channels.delete(worker.channel.id)
    await session.take(worker.says("ada"))
    await worker.queue.until(1)
    assert worker.graveyard.published[0].headers[REASON] == "unknown channel"
    await session.stop(1)


async def test_stopping_hands_back_what_waits_for_another_attempt(worker: Worker) -> None:
    hook = await worker.webhooks.create(worker.channel.id, url="https://example.com")
    assert hook is not None
    worker.endpoint.failing[hook.id] = 500
    session = worker.patient(30.0).session()
    await session.take(worker.says("ada", 2))
    async with asyncio.timeout(5):
        while not worker.endpoint.tried:
            worker.endpoint.changed.clear()
            await worker.endpoint.changed.wait()
    worker.stop.set()
    # With an hour's grace: what only waits for another attempt is no reason to wait.
    await asyncio.wait_for(session.stop(3600), 5)
    assert worker.queue.acked == []
    assert await worker.parked() == set()
