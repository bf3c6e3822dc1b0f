"""Group commit: what is asked for together is done together, and fails apart."""

import asyncio
from collections.abc import Sequence

import pytest

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
