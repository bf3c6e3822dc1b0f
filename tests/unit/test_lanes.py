"""Lanes: order within, independence between, and nothing left over."""

import asyncio

from hypothesis import given, settings
from hypothesis import strategies as st

from consumers.lanes import HandedBack, Lane, Lanes


def unexpected(key: str, error: BaseException) -> None:
    raise AssertionError(f"lane {key} failed") from error


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 3)), max_size=60))
def test_each_lane_is_worked_in_order_whatever_the_interleaving(items: list[tuple[str, int]]) -> None:
    """Each item gives the loop up as often as its number says, so that lanes overtake each other at random."""

    async def scenario() -> None:
        done: list[tuple[str, int]] = []
        busy: set[str] = set()

        async def work(lane: Lane[str, tuple[int, int]]) -> None:
            assert lane.key not in busy, "two items of one lane at once"
            busy.add(lane.key)
            number, yields = lane.items[0]
            for _ in range(yields):
                await asyncio.sleep(0)
            done.append((lane.key, number))
            busy.remove(lane.key)
            lane.items.popleft()

        lanes: Lanes[str, tuple[int, int]] = Lanes(work, unexpected)
        for number, (key, yields) in enumerate(items):
            lanes.put(key, (number, yields))
            if yields == 3:
                await asyncio.sleep(0)
        while len(lanes):  # noqa: ASYNC110 - gives the loop up, waits for no time to pass
            await asyncio.sleep(0)
        for key in "abc":
            assert [n for k, n in done if k == key] == [n for n, (k, _) in enumerate(items) if k == key]
        await lanes.stop(0)

    asyncio.run(scenario())


async def test_a_lane_that_waits_holds_up_no_other() -> None:
    gate, others = asyncio.Event(), asyncio.Event()
    done: list[int] = []

    async def work(lane: Lane[str, int]) -> None:
        if lane.key == "slow":
            await gate.wait()
        done.append(lane.items.popleft())
        if len(done) == 100:
            others.set()

    lanes: Lanes[str, int] = Lanes(work, unexpected)
    lanes.put("slow", -1)
    for number in range(100):
        lanes.put(f"lane {number % 10}", number)
    await asyncio.wait_for(others.wait(), 5)
    assert -1 not in done
    gate.set()
    await lanes.stop(5)
    assert done[-1] == -1


async def test_an_empty_lane_costs_nothing() -> None:
    async def work(lane: Lane[int, int]) -> None:
        lane.items.popleft()

    lanes: Lanes[int, int] = Lanes(work, lambda key, error: None)
    for number in range(10_000):
        lanes.put(number, number)
    while len(lanes):  # noqa: ASYNC110 - gives the loop up, waits for no time to pass
        await asyncio.sleep(0)
    await lanes.stop(1)
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_stopping_ends_the_item_in_hand_and_begins_no_other() -> None:
    started, gate = asyncio.Event(), asyncio.Event()
    done: list[int] = []

    async def work(lane: Lane[str, int]) -> None:
        started.set()
        await gate.wait()
        done.append(lane.items.popleft())

    lanes: Lanes[str, int] = Lanes(work, unexpected)
    lanes.put("a", 1)
    lanes.put("a", 2)
    await started.wait()
    stopping = asyncio.create_task(lanes.stop(5))
    await asyncio.sleep(0)
    gate.set()
    await stopping
    assert done == [1]


async def test_stopping_cancels_what_outlives_the_grace() -> None:
    async def work(lane: Lane[str, int]) -> None:
        await asyncio.get_running_loop().create_future()

    lanes: Lanes[str, int] = Lanes(work, unexpected)
    lanes.put("a", 1)
    await asyncio.wait_for(lanes.stop(0.05), 5)
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_a_lane_that_hands_back_takes_up_nothing_more_and_holds_up_no_stop() -> None:
    handed_back = asyncio.Event()
    seen: list[int] = []

    async def work(lane: Lane[str, int]) -> None:
        seen.append(lane.items[0])
        handed_back.set()
        raise HandedBack

    lanes: Lanes[str, int] = Lanes(work, unexpected)
    lanes.put("a", 1)
    await handed_back.wait()
    lanes.put("a", 2)
    await asyncio.wait_for(lanes.stop(60), 5)
    assert seen == [1]


async def test_a_failure_is_told_and_nothing_more_of_its_lane_is_taken_up() -> None:
    failures: asyncio.Future[tuple[str, BaseException]] = asyncio.get_running_loop().create_future()

    seen: list[int] = []

    async def work(lane: Lane[str, int]) -> None:
        seen.append(lane.items[0])
        raise RuntimeError("boom")

    lanes: Lanes[str, int] = Lanes(work, lambda key, error: failures.set_result((key, error)))
    lanes.put("a", 1)
    key, error = await asyncio.wait_for(failures, 5)
    assert (key, str(error)) == ("a", "boom")
    lanes.put("a", 2)
    await lanes.stop(1)
    assert seen == [1]


async def test_a_lane_that_is_cancelled_from_elsewhere_says_so() -> None:
    failures: list[BaseException] = []

    async def work(lane: Lane[str, int]) -> None:
        raise asyncio.CancelledError

    lanes: Lanes[str, int] = Lanes(work, lambda key, error: failures.append(error))
    lanes.put("a", 1)
    await lanes.stop(1)
    assert failures == []
    told = asyncio.Event()
    lanes = Lanes(work, lambda key, error: told.set())
    lanes.put("a", 1)
    await asyncio.wait_for(told.wait(), 5)
    await lanes.stop(0)


async def test_a_lane_that_only_waits_holds_up_no_stop_and_one_at_work_has_its_grace() -> None:
    done: list[str] = []
    begun = asyncio.Event()

    async def work(lane: Lane[str, int]) -> None:
        if lane.key == "waits":
            with lane.waiting():
                await asyncio.sleep(3600)
        begun.set()
        await asyncio.sleep(0.05)
        done.append(lane.key)
        lane.items.popleft()
        with lane.waiting():
            done.append("went on")

    lanes: Lanes[str, int] = Lanes(work, lambda key, error: None)
    lanes.put("waits", 1)
    lanes.put("works", 1)
    await begun.wait()
    await asyncio.wait_for(lanes.stop(3600), 5)
    assert done == ["works"]
