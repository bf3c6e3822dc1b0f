"""Group commit: what is asked for together is done together, and fails apart."""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from itertools import pairwise

import pytest
from jumping_loop import JumpingLoop

from broker import batching
from broker.batching import Batcher
from broker.errors import RegistryUnavailable


async def test_what_comes_while_one_call_runs_makes_up_the_next() -> None:
    calls: list[list[int]] = []
    first = asyncio.Event()
    gate = asyncio.Event()

    async def run(items: Sequence[int]) -> list[int]:
        calls.append(list(items))
        first.set()
        await gate.wait()
        return [item * 2 for item in items]

    batcher = Batcher(run)
    leader = asyncio.create_task(batcher.submit(0))
    await first.wait()
    others = [asyncio.create_task(batcher.submit(n)) for n in range(1, 50)]
    await asyncio.sleep(0)
    gate.set()
    assert await asyncio.gather(leader, *others) == [n * 2 for n in range(50)]
    assert calls == [[0], list(range(1, 50))]


async def test_one_that_cannot_be_processed_fails_alone() -> None:
    async def run(items: Sequence[int]) -> list[int]:
        if 3 in items:
            raise ValueError("three")
        return list(items)

    batcher = Batcher(run)
    results = await asyncio.gather(*(batcher.submit(n) for n in range(6)), return_exceptions=True)
    assert [r for r in results if not isinstance(r, BaseException)] == [0, 1, 2, 4, 5]
    assert str(results[3]) == "three"


async def test_an_outage_fails_all_at_once_and_the_next_call_goes_through() -> None:
    calls = 0

    async def run(items: Sequence[int]) -> list[int]:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise RegistryUnavailable
        return list(items)

    batcher = Batcher(run)
    results = await asyncio.gather(*(batcher.submit(n) for n in range(10)), return_exceptions=True)
    assert calls == 1
    assert all(isinstance(result, RegistryUnavailable) for result in results)
    assert await batcher.submit(1) == 1


async def test_who_gave_up_waiting_is_not_processed() -> None:
    seen: list[int] = []
    first, gate = asyncio.Event(), asyncio.Event()

    async def run(items: Sequence[int]) -> list[int]:
        seen.extend(items)
        first.set()
        await gate.wait()
        return list(items)

    batcher = Batcher(run)
    leader = asyncio.create_task(batcher.submit(0))
    await first.wait()
    follower = asyncio.create_task(batcher.submit(1))
    await asyncio.sleep(0)
    follower.cancel()
    with pytest.raises(asyncio.CancelledError):
        await follower
    gate.set()
    await leader
    await batcher.close()
    assert seen == [0]


@pytest.mark.parametrize("again", [False, True], ids=["cancelled once", "cancelled twice"])
async def test_one_that_gives_up_while_its_call_writes_goes_on_after_the_end_of_that(again: bool) -> None:
    begun, written = asyncio.Event(), asyncio.Event()
    done: list[int] = []

    async def run(items: Sequence[int]) -> list[int]:
        begun.set()
        await written.wait()
        done.extend(items)
        return list(items)

    batcher = Batcher(run, to_the_end=True)
    given_up = asyncio.create_task(batcher.submit(1))
    await begun.wait()
    late = asyncio.create_task(batcher.submit(2))
    await asyncio.sleep(0)
    for task in (given_up, late):
        task.cancel()
    await asyncio.wait({late})
    if again:
        given_up.cancel()
        await asyncio.sleep(0)
    assert not given_up.done()
    written.set()
    await asyncio.wait({given_up})
    assert given_up.cancelled()
    assert done == [1], "what was cancelled before its call began is not done"


async def test_a_call_that_does_not_end_is_not_waited_for_without_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    begun = asyncio.Event()

    async def run(items: Sequence[int]) -> list[int]:
        begun.set()
        await asyncio.get_running_loop().create_future()
        return list(items)

    monkeypatch.setattr(batching, "END_S", 0.01)
    batcher = Batcher(run, to_the_end=True)
    given_up = asyncio.create_task(batcher.submit(1))
    await begun.wait()
    given_up.cancel()
    async with asyncio.timeout(5):
        await asyncio.wait({given_up})
    await batcher.abandon()


def in_no_time(scene: Callable[[], Coroutine[None, None, None]]) -> None:
    loop = JumpingLoop()
    try:
        loop.run_until_complete(scene())
    finally:
        loop.close()


class Calls:
    """Takes a while for each call, and notes how many items it had and when it began."""

    def __init__(self) -> None:
        self.made: list[tuple[float, int]] = []

    async def run(self, items: Sequence[int]) -> Sequence[int]:
        """Note."""
        self.made.append((asyncio.get_running_loop().time(), len(items)))
        await asyncio.sleep(0.001)
        return items


def test_company_that_never_comes_is_waited_for_ever_more_rarely() -> None:
    async def scene() -> None:
        calls = Calls()
        batcher = Batcher(calls.run, busy_linger_s=0.005)

        async def lane() -> None:
            for number in range(60):
                await batcher.submit(number)

        began = asyncio.get_running_loop().time()
        await asyncio.gather(*(lane() for _ in range(20)))
        assert [count for _, count in calls.made] == [20] * 60
        # Of 60 calls, eleven: the second, the fourth, the eighth, and then each eighth.
        assert asyncio.get_running_loop().time() - began < 60 * 0.001 + 11 * 0.005

    in_no_time(scene)


def test_company_that_comes_is_waited_for_each_time() -> None:
    async def scene() -> None:
        calls = Calls()
        batcher = Batcher(calls.run, busy_linger_s=0.005)
        waiting = [batcher.put(0)]
        for number in range(1_000):
            waiting.append(batcher.put(number))
            await asyncio.sleep(0.0007)
        await asyncio.gather(*waiting)
        gaps = [later - at for (at, _), (later, _) in pairwise(calls.made)]
        assert min(gaps) > 0.0059, "there is a linger before each"

    in_no_time(scene)


@pytest.mark.parametrize("full", [True, False], ids=["full", "complete"])
def test_a_call_with_all_that_it_can_have_begins_at_once(full: bool) -> None:
    async def scene() -> None:
        calls, loop = Calls(), asyncio.get_running_loop()
        limit, complete = (4, None) if full else (100, lambda waiting: waiting >= 4)
        batcher = Batcher(calls.run, limit, busy_linger_s=600.0, complete=complete)
        await asyncio.gather(*(batcher.submit(number) for number in range(4)))
        three = [batcher.put(number) for number in range(3)]
        await asyncio.sleep(1.0)
        assert len(calls.made) == 1, "it waits for the fourth"
        fourth, at = batcher.put(3), loop.time()
        await asyncio.gather(*three, fourth)
        assert calls.made[1] == (at, 4)

    in_no_time(scene)


def test_company_that_cannot_come_any_more_is_not_waited_for() -> None:
    async def scene() -> None:
        calls = Calls()
        coming = 3
        batcher = Batcher(calls.run, busy_linger_s=600.0, complete=lambda waiting: waiting >= coming)
        await asyncio.gather(*(batcher.submit(number) for number in range(3)))
        two = [batcher.put(number) for number in range(2)]
        await asyncio.sleep(1.0)
        assert len(calls.made) == 1
        coming = 2
        batcher.look()
        at = asyncio.get_running_loop().time()
        await asyncio.gather(*two)
        assert calls.made[1] == (at, 2)

    in_no_time(scene)
