"""Receivers are down, fail, hang, dawdle, hang up, or answer nonsense: everything arrives, in order, once it can."""

import asyncio
from pathlib import Path

import pytest
from behaviours import (
    answers_rubbish,
    breaks_its_chunks,
    breaks_its_chunks_later,
    breaks_its_head,
    busy,
    closes,
    cuts_its_chunks,
    failing,
    failing_at_random,
    floods,
    hangs,
    poisoned_by,
    redirects,
    resets,
    trickles_the_body,
    trickles_the_status,
)
from certificates import make_authority
from receivers import Behaviour, Receiver, good, opened
from stage import Stage

BROKEN_S = 20.0
#: The breaker asks an endpoint that was broken for so long within seconds, and then the backlog drains.
REPAIRED_S = 150.0
DOWN_S = 120.0


async def broken_for_a_while(
    stage: Stage, fault: str, bad: dict[str, Behaviour], seconds: float, *, rate: float = 60.0
) -> None:
    """Have receivers behave badly beside a good one, and well afterwards; all get everything, and once."""
    fine = Receiver("fine")
    broken = [Receiver(name) for name in bad]
    for receiver in broken:
        receiver.behaviour = bad[receiver.name]
    async with opened(fine, *broken):
        await stage.start_all("api", "bot", "deliver")
        channel = await stage.channel(fine)
        for receiver in broken:
            await stage.webhook(channel, receiver, broken=True, timeoutSeconds=2)
        load = stage.load(rate=rate)
        async with load.flowing():
            with stage.strike(fault):
                await asyncio.sleep(seconds)
                for receiver in broken:
                    receiver.behaviour = good
            await stage.arrivals(load, 50)
        await stage.judge(fault, load, most_repeated=0, within_s=REPAIRED_S)
        assert all(receiver.requests > receiver.distinct for receiver in broken)


@pytest.mark.timeout(180)
async def test_bad_receivers_of_many_kinds_get_everything_in_order_once_they_are_mended(stage: Stage) -> None:
    await broken_for_a_while(
        stage,
        "six bad receivers beside a good one",
        {
            "hangs": hangs,
            "closes": closes,
            "resets": resets,
            "fails": failing(500),
            "fails at random": failing_at_random(7),
            "answers rubbish": answers_rubbish,
        },
        4.0,
        rate=40.0,
    )


@pytest.mark.long
@pytest.mark.timeout(400)
@pytest.mark.parametrize(
    ("fault", "behaviour"),
    [
        ("hangs for ever", hangs),
        ("one byte of its status line a second", trickles_the_status),
        ("closes before answering", closes),
        ("resets before answering", resets),
        ("503", failing(503)),
        ("answers what is not HTTP", answers_rubbish),
    ],
)
async def test_a_bad_receiver_gets_everything_in_order_once_it_is_mended(
    stage: Stage, fault: str, behaviour: Behaviour
) -> None:
    await broken_for_a_while(stage, f"receiver: {fault}, 20 s", {fault: behaviour}, BROKEN_S)


@pytest.mark.long
@pytest.mark.timeout(600)
async def test_a_receiver_that_is_down_for_two_minutes_gets_everything_in_order(stage: Stage) -> None:
    fine, down = Receiver("fine"), Receiver("down")
    async with opened(fine, down):
        await stage.start_all("api", "bot", "deliver", "deliver")
        channel = await stage.channel(fine)
        await stage.webhook(channel, down, broken=True)
        load = stage.load(rate=60.0)
        async with load.flowing():
            await stage.arrivals(load, 50)
            with stage.strike("down"):
                await down.close()
                await asyncio.sleep(DOWN_S)
                await down.open()
            await stage.arrivals(load, 50)
        # Longest wait of the breaker, and the draining of what was held back.
        await stage.judge(
            "receiver: down for 2 minutes, back at the same port", load, most_repeated=0, within_s=240.0
        )


@pytest.mark.long
@pytest.mark.timeout(600)
async def test_a_receiver_that_fails_half_of_the_time_gets_everything_in_order(stage: Stage) -> None:
    fine, half = Receiver("fine"), Receiver("half")
    half.behaviour = failing_at_random(11)
    async with opened(fine, half):
        await stage.start_all("api", "bot", "deliver")
        channel = await stage.channel(fine)
        # With the usual schedule the unlucky ones, that fail seven times in a row, would wait for half an hour.
        await stage.schedule(await stage.webhook(channel, half, broken=True), [0.5] * 60)
        load = stage.load(rate=20.0)
        async with load.flowing():
            await asyncio.sleep(BROKEN_S)
        await stage.judge(
            "receiver: 500 for half of the requests at random", load, most_repeated=0, within_s=400.0
        )
        assert half.requests > 1.5 * half.distinct


@pytest.mark.long
@pytest.mark.timeout(200)
@pytest.mark.parametrize(
    ("fault", "behaviour"),
    [
        ("accepts with an answer of 10 MB", floods),
        ("accepts with headers that are no HTTP", breaks_its_head),
        ("accepts with a chunked body that breaks at once", breaks_its_chunks),
        ("accepts with a chunked body that breaks later", breaks_its_chunks_later),
        ("accepts with a chunked body that is cut off", cuts_its_chunks),
        ("accepts with a body of one byte a second", trickles_the_body),
    ],
)
async def test_a_receiver_whose_answer_is_nonsense_after_the_status_line_gets_everything_once(
    stage: Stage, fault: str, behaviour: Behaviour
) -> None:
    fine, odd = Receiver("fine"), Receiver(fault)
    odd.behaviour = behaviour
    async with opened(fine, odd):
        _, _, deliver = await stage.start_all("api", "bot", "deliver")
        channel = await stage.channel(fine)
        await stage.webhook(channel, odd, broken=True)
        load = stage.load(rate=15.0)
        async with load.flowing():
            await asyncio.sleep(BROKEN_S)
        # The status line says that it took the delivery: whatever comes after it, that was it.
        await stage.judge(
            f"receiver: {fault}",
            load,
            most_repeated=0,
            within_s=60.0,
            notes={"worker's memory, MB": deliver.memory_mb},
        )
        assert deliver.memory_mb < 250


@pytest.mark.long
@pytest.mark.timeout(300)
async def test_a_receiver_that_asks_for_time_is_given_it(stage: Stage) -> None:
    fine, slow = Receiver("fine"), Receiver("busy")
    slow.behaviour = busy(every=40, retry_after_s=2)
    async with opened(fine, slow):
        await stage.start_all("api", "bot", "deliver")
        channel = await stage.channel(fine)
        await stage.webhook(channel, slow, broken=True)
        load = stage.load(rate=30.0)
        async with load.flowing():
            await asyncio.sleep(BROKEN_S)
        await stage.judge(
            "receiver: 429 with Retry-After, again and again", load, most_repeated=0, within_s=150.0
        )
        refused = [arrival.at for arrival in slow.arrivals if not arrival.accepted]
        assert refused
        for at in refused:
            # What was on its way already is all that may still come in the time that it asked for.
            hasty = [arrival for arrival in slow.arrivals if at + 0.5 < arrival.at < at + 1.5]
            assert not hasty, f"{len(hasty)} requests in the time that a Retry-After asked for"


@pytest.mark.long
@pytest.mark.timeout(300)
async def test_a_receiver_that_is_gone_is_disabled_and_gets_everything_when_it_is_enabled(
    stage: Stage,
) -> None:
    fine, gone = Receiver("fine"), Receiver("gone")
    async with opened(fine, gone):
        await stage.start_all("api", "bot", "deliver")
        channel = await stage.channel(fine)
        subscriber = await stage.webhook(channel, gone, broken=True)
        path = f"/v1/webhooks/{subscriber.webhook_id}"
        load = stage.load(rate=60.0)
        async with load.flowing():
            await stage.arrivals(load, 50)
            with stage.strike("410"):
                gone.behaviour = failing(410)
                await stage.arrivals(load, 300)
                shown = await stage.api.admin("GET", path)
                assert shown["enabled"] is False
                assert shown["disabledReason"]
                gone.behaviour = good
                came = gone.requests
                await stage.arrivals(load, 100)
                assert gone.requests == came, "a disabled webhook was delivered to"
                await stage.api.admin("PATCH", path, {"enabled": True})
            await stage.arrivals(load, 100)
        await stage.judge("receiver: 410, then enabled again", load, most_repeated=0, within_s=60.0)


@pytest.mark.long
@pytest.mark.timeout(300)
async def test_redirects_are_not_followed(stage: Stage) -> None:
    fine, moved, elsewhere = Receiver("fine"), Receiver("moved"), Receiver("elsewhere")
    async with opened(fine, moved, elsewhere):
        await stage.start_all("api", "bot", "deliver")
        channel = await stage.channel(fine)
        await stage.webhook(channel, moved, broken=True)
        load = stage.load(rate=60.0)
        async with load.flowing():
            with stage.strike("moved"):
                for status in (301, 302, 303, 307, 308):
                    moved.behaviour = redirects(elsewhere.url, status)
                    await asyncio.sleep(4.0)
                moved.behaviour = good
            await stage.arrivals(load, 50)
        await stage.judge("receiver: redirects, 20 s", load, most_repeated=0, within_s=REPAIRED_S)
        assert elsewhere.requests == 0


@pytest.mark.long
@pytest.mark.timeout(300)
async def test_a_message_that_is_always_refused_lets_the_others_pass(stage: Stage) -> None:
    fine, picky = Receiver("fine"), Receiver("picky")
    picky.behaviour = poisoned_by("poison")
    async with opened(fine, picky):
        await stage.start_all("api", "bot", "deliver")
        channel = await stage.channel(fine)
        subscriber = await stage.webhook(channel, picky, broken=True)
        load = stage.load(rate=60.0)
        load.script = lambda user, number: "poison" if number % 7 == 3 else None
        async with load.flowing():
            await asyncio.sleep(BROKEN_S)
        await stage.judge(
            "receiver: refuses some messages for good", load, spared=("poison",), most_repeated=0
        )
        poison = sum(message.text == "poison" for messages in load.messages.values() for message in messages)
        assert poison > 50
        dead = await stage.statuses()
        assert dead.get("picky dead", 0) == poison, dead
        page = await stage.api.admin(
            "GET",
            f"/v1/channels/{channel.id}/deliveries?status=dead&webhookId={subscriber.webhook_id}&limit=1",
        )
        items = page["items"]
        assert isinstance(items, list)
        shown = await stage.api.admin("GET", f"/v1/deliveries/{items[0]['id']}")
        attempts = shown["attempts"]
        assert isinstance(attempts, list)
        assert {attempt["statusCode"] for attempt in attempts} == {400}
        assert shown["response"] is not None


@pytest.mark.long
@pytest.mark.timeout(300)
async def test_an_expired_certificate_is_refused_until_it_is_renewed(stage: Stage, tmp_path: Path) -> None:
    authority = make_authority(tmp_path)
    fine = Receiver("fine", tls=authority.server("fine", expired=False))
    stale = Receiver("stale", tls=authority.server("stale", expired=True))
    async with opened(fine, stale):
        await stage.start_all("api", "bot")
        await stage.start("deliver", SSL_CERT_FILE=str(authority.certificate))
        channel = await stage.channel(fine)
        await stage.webhook(channel, stale, broken=True)
        load = stage.load(rate=40.0)
        async with load.flowing():
            with stage.strike("expired"):
                await asyncio.sleep(BROKEN_S)
                assert stale.requests == 0
                await stale.close()
                stale.use(authority.server("renewed", expired=False))
                await stale.open()
            await stage.arrivals(load, 50)
        await stage.judge(
            "receiver: expired TLS certificate, 20 s", load, most_repeated=0, within_s=REPAIRED_S
        )
