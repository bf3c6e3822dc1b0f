"""Places for attempts: first tries before retries, nobody starves, none is lost when somebody gives up waiting."""

import asyncio

import pytest

from consumers import in_flight
from consumers.in_flight import A_RETRY_IN, Places


async def test_first_tries_go_before_retries_and_a_retry_has_its_turn_now_and_then() -> None:
    places = Places(1, 0)
    held = await places.take(first=True)
    order: list[str] = []

    async def attempt(name: str, first: bool) -> None:
        place = await places.take(first=first)
        order.append(name)
        places.leave(place)

    retries = [asyncio.create_task(attempt("retry", False)) for _ in range(4)]
    firsts = [asyncio.create_task(attempt("first", True)) for _ in range(20)]
    await asyncio.sleep(0)
    places.leave(held)
    await asyncio.gather(*retries, *firsts)
    assert order[: A_RETRY_IN - 1] == ["first"] * (A_RETRY_IN - 1)
    assert 1 <= order[:20].count("retry") <= 3
    assert order.count("retry") == 4


async def test_whoever_gives_up_waiting_takes_no_place_with_them() -> None:
    places = Places(2, 0)
    held = [await places.take(first=True) for _ in range(2)]
    served: list[int] = []

    async def attempt(number: int) -> None:
        place = await places.take(first=bool(number % 2))
        served.append(number)
        places.leave(place)

    waiting = [asyncio.create_task(attempt(number)) for number in range(10)]
    await asyncio.sleep(0)
    for task in waiting[:4]:
        task.cancel()
    places.leave(held[0])
    # The first of these is given the place and cancelled at the same moment: the place goes on to the next one.
    for task in waiting[4:8]:
        task.cancel()
    places.leave(held[1])
    await asyncio.wait_for(asyncio.gather(*waiting, return_exceptions=True), 5)
    assert sorted(served) == [8, 9]
    both = [await asyncio.wait_for(places.take(first=False), 1) for _ in range(2)]
    for place in both:
        places.leave(place)


async def test_an_attempt_that_hangs_gives_its_place_to_others_up_to_a_bound(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(in_flight, "PATIENCE_S", 0.01)
    places = Places(2, 3)
    hanging = [await asyncio.wait_for(places.take(first=True), 5) for _ in range(5)]
    assert places.hanging == 3
    sixth = asyncio.create_task(places.take(first=True))
    places.leave(hanging[0])
    places.leave(hanging[4])
    places.leave(await asyncio.wait_for(sixth, 5))
    for place in hanging[1:4]:
        places.leave(place)
    assert places.hanging == 0
    both = [await asyncio.wait_for(places.take(first=False), 1) for _ in range(2)]
    for place in both:
        places.leave(place)
