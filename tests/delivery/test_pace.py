"""The pace of deliveries: never more than was asked for, and no less where there is enough to do."""

import asyncio
from collections.abc import Callable, Coroutine

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jumping_loop import JumpingLoop

from consumers.pace import BURST_S, LEAST_RATE, Pace, Turn


def in_no_time(scene: Callable[[asyncio.AbstractEventLoop], Coroutine[None, None, None]]) -> None:
    loop = JumpingLoop()
    try:
        loop.run_until_complete(scene(loop))
    finally:
        loop.close()


async def come(loop: asyncio.AbstractEventLoop, turn: Turn) -> float:
    await turn.come
    return loop.time()


@given(
    rate=st.floats(0.1, 1000),
    gaps=st.lists(st.floats(0, 3), min_size=2, max_size=60),
    leavers=st.sets(st.integers(0, 59)),
)
def test_in_no_stretch_of_time_more_go_than_the_rate_and_its_small_burst(
    rate: float, gaps: list[float], leavers: set[int]
) -> None:
    async def scene(loop: asyncio.AbstractEventLoop) -> None:
        pace, coming = Pace(rate, loop.time), []
        for number, gap in enumerate(gaps):
            await asyncio.sleep(gap)
            turn = pace.turn()
            if number in leavers and not turn.come.done():
                turn.leave()
                turn.leave()
            else:
                coming.append(asyncio.ensure_future(come(loop, turn)))
        moments = [await one for one in coming]
        assert moments == sorted(moments), "first come, first served"
        for i in range(len(moments)):
            for j in range(i + 1, min(i + 30, len(moments))):
                assert j - i <= (moments[j] - moments[i] + BURST_S) * rate + 1e-6

    in_no_time(scene)


def test_a_crowd_goes_at_the_rate_and_who_leaves_it_holds_up_nobody() -> None:
    async def scene(loop: asyncio.AbstractEventLoop) -> None:
        pace, began = Pace(10.0, loop.time), loop.time()
        turns = [pace.turn() for _ in range(42)]
        assert turns[0].come.done()
        assert pace.wait_s(loop.time()) == pytest.approx(4.1, abs=0.1)
        for turn in turns[20:40]:
            turn.leave()
        assert await come(loop, turns[41]) - began == pytest.approx(2.0)
        unused = pace.turn()
        await unused.come
        unused.leave()
        assert pace.turn().come.done(), "a turn that was not used is another's"

    in_no_time(scene)


@pytest.mark.parametrize("rate", [5e-324, 1e-9, 0.001])
def test_another_rate_holds_at_once_for_those_who_wait(rate: float) -> None:
    async def scene(loop: asyncio.AbstractEventLoop) -> None:
        pace, began = Pace(rate, loop.time), loop.time()
        turns = [pace.turn() for _ in range(30)]
        await asyncio.sleep(1)
        assert not turns[2].come.done()
        pace.rate = 100.0
        assert await come(loop, turns[-1]) - began <= 1.5

    in_no_time(scene)


def test_no_rate_makes_anybody_wait_for_ever() -> None:
    async def scene(loop: asyncio.AbstractEventLoop) -> None:
        for rate in (0.0, 5e-324, -1.0):
            pace = Pace(rate, loop.time)
            for _ in range(2):
                pace.turn()
            assert pace.wait_s(loop.time()) <= 2 / LEAST_RATE
            await pace.turn().come

    in_no_time(scene)
