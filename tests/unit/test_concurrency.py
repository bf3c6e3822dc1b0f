"""How many attempts an endpoint may have in flight: as many as it has shown that it can take."""

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from consumers.concurrency import ASKED_AT_ONCE, HELD_TO_SPARE, Concurrency
from consumers.limit import LEAST


def places(most: int, spare: int = 1000) -> Concurrency:
    """Make an endpoint's own places, where so many of those that all share are spare."""
    return Concurrency(most, lambda: spare)


async def test_it_grows_with_each_answer_and_is_halved_by_each_failure() -> None:
    own = places(64)
    for _ in range(100):
        assert await own.take(1)
        own.answered(3.0, few=True)
    assert own.limit == 64
    assert await own.take(1)
    own.failed()
    assert own.limit == 32
    for _ in range(10):
        assert await own.take(1)
        own.failed()
    assert own.limit == LEAST


async def test_what_was_not_tried_tells_nothing() -> None:
    own = places(64)
    await own.take(1)
    own.give_back()
    assert own.limit == LEAST


async def test_it_leaves_to_others_what_they_may_need_and_takes_it_when_it_is_spare() -> None:
    spare = 1000
    own = Concurrency(64, lambda: spare)
    for _ in range(64):
        assert own.take_now()
        own.answered(0.1, few=True)
    spare = 5
    held = 0
    while own.take_now():
        held += 1
    assert held == HELD_TO_SPARE * spare
    waiting = [asyncio.create_task(own.take(3600)) for _ in range(64 - held)]
    await asyncio.sleep(0)
    assert own.taken == held
    spare = 0
    for _ in range(held - LEAST):
        own.give_back()
    await asyncio.sleep(0)
    assert own.taken == LEAST, "it always has a few"
    spare = 1000
    own.give_back()
    await asyncio.gather(*waiting)
    assert own.taken == LEAST - 1 + len(waiting)


async def test_one_that_hangs_from_the_start_holds_a_few_places_and_the_others_are_told_to_look_again() -> (
    None
):
    own = places(64)
    taken = [await own.take(0.001) for _ in range(10)]
    assert taken == [True] * LEAST + [False] * (10 - LEAST)
    assert not own.take_now()
    many = 3 * ASKED_AT_ONCE + 1
    assert await asyncio.gather(*(own.take(0.001) for _ in range(many))) == [False] * many
    own.answered(0.001, few=True)
    assert await own.take(0.001)


async def test_places_go_to_who_has_waited_longest() -> None:
    own = places(1)
    order: list[float] = []
    assert own.take_now()

    async def wait(since: float) -> None:
        assert await own.take(3600, since)
        order.append(since)
        own.answered(0.001, few=True)

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(wait(since)) for since in (3.0, 1.0, 4.0, 1.5, 9.0, 2.6)]
        await asyncio.sleep(0)
        tasks[3].cancel()
        await asyncio.sleep(0)
        own.answered(0.001, few=True)
    assert order == [1.0, 2.6, 3.0, 4.0, 9.0]


async def test_who_waits_on_is_asked_again_only_after_all_others() -> None:
    own = places(1)
    asked: list[float] = []
    assert own.take_now()

    async def wait(since: float) -> None:
        while not await own.take(3600, since):
            asked.append(since)

    tasks = [asyncio.create_task(wait(since)) for since in (1.0, 2.0, 3.0)]
    for _ in range(6):
        await asyncio.sleep(0)
        own.ask()
        await asyncio.sleep(0)
    assert asked == [1.0, 2.0, 3.0] * 2
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


@given(st.lists(st.sampled_from(["take", "well", "badly", "cancel", "ask"]), max_size=80))
def test_never_more_than_the_limit_and_no_place_is_lost(steps: list[str]) -> None:
    async def play() -> None:
        own, held = places(16), 0
        waiting: list[asyncio.Task[bool]] = []
        for step in steps:
            if step == "take":
                waiting.append(asyncio.create_task(own.take(3600, len(waiting) % 3)))
            elif step == "cancel" and waiting:
                waiting.pop(0).cancel()
            elif step == "ask":
                own.ask()
            elif held:
                held -= 1
                if step == "well":
                    own.answered(0.001, few=True)
                else:
                    own.failed()
            for _ in range(3):
                await asyncio.sleep(0)
            for task in [task for task in waiting if task.done()]:
                waiting.remove(task)
                held += not task.cancelled() and task.result()
            # Halving leaves what is in flight in flight.
            assert own.taken == held
            assert not (waiting and held < int(own.limit))
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        assert own.taken == held

    asyncio.run(play())
