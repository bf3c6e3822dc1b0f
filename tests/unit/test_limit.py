"""What an endpoint may have in flight: all its places if it only takes its time, fewer if more makes it slower."""

import random
from collections.abc import Callable
from heapq import heapify, heappop, heappush
from itertools import count

import pytest

from consumers.limit import LEAST, Limit

MOST = 64
TIMEOUT_S = 15.0
#: Of places / latency, at the least.
LEAST_PART = 0.8


def play(ends: Callable[[float], float], seconds: float, warm_s: float) -> tuple[float, float, float]:
    """Keep an endpoint as busy as its limit allows; `ends` tells when an attempt that begins then is answered.

    Returns, of the time after `warm_s`: answers a second, the longest attempt and the mean limit.
    """
    limit, numbers = Limit(MOST), count()
    in_flight: list[tuple[float, int, float, bool]] = []
    at, answers, longest, limits = 0.0, 0, 0.0, 0.0
    while at < seconds:
        while len(in_flight) < int(limit.now):
            heappush(in_flight, (ends(at), next(numbers), at, len(in_flight) < LEAST))
        at, _, began, few = heappop(in_flight)
        if at - began > TIMEOUT_S:
            limit.failed()
        else:
            limit.answered(at - began, few=few and len(in_flight) < LEAST)
        if at > warm_s:
            answers, longest, limits = answers + 1, max(longest, at - began), limits + limit.now
    return answers / (seconds - warm_s), longest, limits / answers


def one_after_the_other(workers: int, each_s: float) -> Callable[[float], float]:
    """Make an endpoint with so many workers that take so long each; what they cannot do at once waits."""
    free = [0.0] * workers

    def ends(at: float) -> float:
        end = max(at, heappop(free)) + each_s
        heappush(free, end)
        return end

    heapify(free)
    return ends


@pytest.mark.parametrize("latency_s", [0.1, 0.2, 0.5, 0.9, 0.97, 1.03, 1.3, 2.0, 3.0, 5.0])
def test_an_endpoint_that_only_takes_its_time_has_all_its_places(latency_s: float) -> None:
    rate, _, _ = play(lambda at: at + latency_s, 90.0, 30.0)
    assert rate >= LEAST_PART * MOST / latency_s


@pytest.mark.parametrize("latency_s", [0.1, 0.5, 1.0])
def test_nor_is_one_held_back_that_takes_now_less_and_now_more(latency_s: float) -> None:
    drawn = random.Random(17)
    rate, _, _ = play(lambda at: at + drawn.expovariate(1 / latency_s), 300.0, 30.0)
    assert rate >= LEAST_PART * MOST / latency_s


@pytest.mark.parametrize("slower_s", [1.03, 3.0])
def test_one_that_takes_longer_from_now_on_has_all_its_places_again_after_a_while(slower_s: float) -> None:
    rate, _, _ = play(lambda at: at + (0.05 if at < 20.0 else slower_s), 180.0, 120.0)
    assert rate >= LEAST_PART * MOST / slower_s


@pytest.mark.parametrize(
    ("workers", "each_s"), [(1, 0.05), (1, 0.5), (2, 0.5), (5, 0.5), (5, 2.0), (10, 1.0)]
)
def test_one_that_is_slower_the_more_it_has_keeps_its_rate_and_has_less_waiting(
    workers: int, each_s: float
) -> None:
    rate, longest, limit = play(one_after_the_other(workers, each_s), 300.0, 30.0)
    assert rate >= 0.95 * workers / each_s
    assert longest < min(TIMEOUT_S, MOST * each_s / workers), "no attempt times out for our own crowding"
    assert limit < MOST * 0.8


def test_one_that_begins_to_fail_is_left_its_few() -> None:
    limit = Limit(MOST)
    for _ in range(100):
        limit.answered(0.01, few=True)
    assert limit.now == MOST
    for _ in range(4):
        limit.failed()
    assert limit.now == LEAST
