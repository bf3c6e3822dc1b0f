"""One server's places: no more in flight than it may have, channels in turn, and none that holds them all."""

import asyncio
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.registry.records import Webhook
from consumers.gates import Gates, Passage
from consumers.origins import Origins, Share, origin_of

MOST = 16


def webhook(number: int, url: str = "https://example.com/hook", channel: str = "one") -> Webhook:
    """Make a webhook."""
    return Webhook(
        id=f"{channel}-{number}",
        channel_id=channel,
        url=url,
        verify_token=None,
        events=("response.#",),
        headers={},
        secret="whsec_",
        previous_secret=None,
        previous_secret_until=None,
        enabled=True,
        disabled_reason=None,
        timeout_s=None,
        created_at=datetime.now(UTC),
    )


def share_of(origins: Origins, channel: str) -> Share:
    """Return a channel's share of the one server."""
    return origins.share_of(webhook(0, channel=channel))


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("https://example.com/a", "https://EXAMPLE.com:443/b?c", True),
        ("https://example.com/a", "https://example.com./", True),
        ("https://example.com/a", "http://example.com/a", False),
        ("https://example.com/a", "https://example.com:8443/a", False),
        ("https://example.com/a", "https://www.example.com/a", False),
        ("nonsense", "other nonsense", False),
    ],
)
def test_a_server_is_told_by_scheme_host_and_port(one: str, other: str, same: bool) -> None:
    assert (origin_of(one) == origin_of(other)) is same


async def test_many_webhooks_with_one_url_are_no_way_around_the_limit_of_each() -> None:
    gates = Gates(most=512, most_each=64, most_each_origin=MOST)
    passages: list[Passage] = []
    for channel in "abcdef":
        for number in range(50):
            passage = gates.enter_now(gates.of(webhook(number, channel=channel)), first=True)
            if passage is not None:
                passages.append(passage)
    assert len(passages) <= MOST
    elsewhere = gates.of(webhook(0, "https://elsewhere.example/"))
    assert gates.enter_now(elsewhere, first=True) is not None
    waiting = [
        asyncio.create_task(gates.enter(gates.of(webhook(100 + n)), first=True, since=0.0))
        for n in range(200)
    ]
    await asyncio.sleep(0)
    # Those who wait for the one server take no places of others.
    assert gates.enter_now(elsewhere, first=True) is not None
    for passage in passages:
        passage.leave(None, 0.0)
    entered = [task.result() for task in (await asyncio.wait(waiting, timeout=0.1))[0]]
    assert 0 < len([passage for passage in entered if passage]) <= MOST
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)


async def test_a_changed_url_leads_to_the_places_of_another_server() -> None:
    gates = Gates(most=512, most_each=64, most_each_origin=1)
    first = gates.enter_now(gates.of(webhook(0)), first=True)
    assert first is not None
    assert gates.enter_now(gates.of(webhook(0)), first=True) is None
    moved = gates.of(webhook(0, "https://elsewhere.example/"))
    second = gates.enter_now(moved, first=True)
    assert second is not None
    first.leave(True, 0.0)
    assert gates.enter_now(gates.of(webhook(1)), first=True) is not None
    second.leave(True, 0.0)


async def test_a_channel_that_hangs_leaves_places_at_a_shared_server_to_the_others() -> None:
    origins = Origins(MOST)
    greedy, *others = (share_of(origins, channel) for channel in "abcd")
    while greedy.take_now():
        pass
    for other in others:
        assert other.take_now()


async def test_channels_take_turns_however_many_wait_for_one_of_them() -> None:
    origins = Origins(1)
    holder, many, one = (share_of(origins, channel) for channel in "abc")
    assert holder.take_now()
    order: list[str] = []

    async def attempt(share: Share, name: str, since: float) -> None:
        assert await share.take(3600, since)
        order.append(name)
        share.give_back()

    async with asyncio.TaskGroup() as group:
        for number in range(100):
            group.create_task(attempt(many, f"many-{number}", float(number)))
        group.create_task(attempt(one, "one", 1000.0))
        await asyncio.sleep(0)
        holder.give_back()
    assert order[:3] == ["many-0", "one", "many-1"]
    assert order[1:] == ["one", *(f"many-{number}" for number in range(1, 100))]


async def test_who_waits_for_a_server_that_hangs_waits_as_long_as_it_does() -> None:
    at = 0.0
    gates = Gates(most=512, most_each=64, most_each_origin=4, clock=lambda: at)
    held = [gates.enter_now(gates.of(webhook(n, channel=f"c{n}")), first=True) for n in range(4)]
    assert all(held)
    gate = gates.of(webhook(9, channel="c9"))
    waiting = asyncio.create_task(gates.enter(gate, first=True, since=-100.0))
    await asyncio.sleep(0)
    assert gate.queue_s(at) == 0.0
    at = 2.0
    assert gate.queue_s(at) == 2.0
    assert gates.of(webhook(0, "https://elsewhere.example/", channel="d")).queue_s(at) == 0.0
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    assert gate.queue_s(at) == 0.0


async def test_what_nobody_uses_is_forgotten() -> None:
    origins = Origins(MOST)
    for number in range(100):
        share = origins.share_of(webhook(number, f"https://host-{number}.example/"))
        assert share.take_now()
        share.give_back()
    del share
    assert len(origins._places) == 0


@given(
    st.lists(
        st.tuples(st.sampled_from("abc"), st.sampled_from(["take", "leave", "cancel", "ask"])), max_size=80
    ),
    st.integers(1, 6),
)
def test_never_more_than_the_limit_nobody_waits_in_vain_and_no_place_is_lost(
    steps: list[tuple[str, str]], most: int
) -> None:
    async def play() -> None:
        origins = Origins(most)
        shares = {channel: share_of(origins, channel) for channel in "abc"}
        held = dict.fromkeys(shares, 0)
        waiting: list[tuple[str, asyncio.Task[bool]]] = []
        for channel, step in steps:
            share = shares[channel]
            if step == "take":
                waiting.append((channel, asyncio.create_task(share.take(3600, 0.0))))
            elif step == "cancel" and waiting:
                waiting.pop(0)[1].cancel()
            elif step == "ask":
                share.waiters.ask()
            elif held[channel]:
                held[channel] -= 1
                share.give_back()
            for _ in range(3):
                await asyncio.sleep(0)
            for each in [each for each in waiting if each[1].done()]:
                waiting.remove(each)
                held[each[0]] += not each[1].cancelled() and each[1].result()
            assert {name: one.held for name, one in shares.items()} == held
            assert sum(held.values()) <= most
            assert not any(shares[name].fair for name, _ in waiting)
        for _, task in waiting:
            task.cancel()
        await asyncio.gather(*(task for _, task in waiting), return_exceptions=True)
        for name, one in shares.items():
            for _ in range(held[name]):
                one.give_back()
        assert shares["a"].origin.free == most
        assert shares["a"].origin.waiting == 0

    asyncio.run(play())
