"""A watch ends what takes too long, each piece of work after its own time, and nothing else."""

import asyncio

import pytest

from broker.api.patience import Watch
from broker.api.problems import Problem


async def test_what_takes_too_long_is_told_of_after_its_own_time_and_the_rest_goes_on() -> None:
    watch = Watch(0.1)
    loop = asyncio.get_running_loop()

    async def bounded(begin: float, seconds: float) -> tuple[float, object]:
        await asyncio.sleep(begin)
        began = loop.time()
        try:
            found: object = await watch.bound(asyncio.sleep(seconds, "done"))
        except Problem as problem:
            found = problem.status
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0
        return loop.time() - began, found

    ended = await asyncio.gather(bounded(0, 0.02), bounded(0, 5), bounded(0.05, 5), bounded(0.06, 0.01))
    assert [found for _, found in ended] == ["done", 503, 503, "done"]
    assert all(0.09 <= took < 0.5 for took, found in ended if found == 503)
    # The timer that went with those is no longer there, and comes back with the next.
    assert (await bounded(0, 5))[1] == 503


async def test_whoever_cancels_the_task_is_not_told_that_it_was_late() -> None:
    watch = Watch(0.05)
    begun = asyncio.Event()

    async def hangs() -> None:
        begun.set()
        await asyncio.get_running_loop().create_future()

    task = asyncio.create_task(watch.bound(hangs()))
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    async def stubborn() -> None:
        try:
            await asyncio.sleep(5)
        finally:
            # Somebody cancels it as well, while it ends because it is late.
            current = asyncio.current_task()
            assert current is not None
            current.cancel()

    with pytest.raises(asyncio.CancelledError):
        await asyncio.create_task(watch.bound(stubborn()))


async def test_an_error_of_the_work_is_raised_as_it_is() -> None:
    async def fails() -> None:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        await Watch(1).bound(fails())
