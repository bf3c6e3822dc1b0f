"""How busy the thread of the event loop is."""

import time
from collections.abc import Callable

import pytest

from consumers.busyness import Busyness, wanted_s


def test_it_is_the_part_of_the_time_at_work_since_the_last_look() -> None:
    at = wanted = 100.0
    busy = Busyness(lambda: wanted, lambda: at)
    assert busy.part == 1.0, "a process that begins has much to do"
    busy.look()
    at, wanted = 101.0, 100.25
    busy.look()
    at, wanted = 102.0, 100.5
    busy.look()
    assert busy.part == pytest.approx(0.25)
    at, wanted = 103.0, 101.75
    busy.look()
    assert busy.part == 1.0
    at, wanted = 104.0, 101.75
    busy.look()
    assert busy.part == 1.0, "it lasts for two looks"
    at = 105.0
    busy.look()
    assert busy.part == 0.0


def test_work_counts_and_sleep_does_not() -> None:
    def wanted_while(work: Callable[[], None]) -> float:
        before = wanted_s()
        work()
        return wanted_s() - before

    def working() -> None:
        ends = time.thread_time() + 0.05
        while time.thread_time() < ends:
            pass

    assert wanted_while(working) >= 0.04
    # Whoever wakes up may have to wait for a processor, but not each time.
    assert min(wanted_while(lambda: time.sleep(0.05)) for _ in range(10)) < 0.03
