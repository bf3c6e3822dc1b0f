"""The pace of deliveries: never more than was asked for, and no less where there is enough to do."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumers.pace import BURST_S, Pace


@given(
    rate=st.floats(0.1, 1000),
    gaps=st.lists(st.floats(0, 3), min_size=2, max_size=200),
)
def test_in_no_stretch_of_time_more_go_than_the_rate_and_its_small_burst(
    rate: float, gaps: list[float]
) -> None:
    pace, at, moments = Pace(rate), 0.0, []
    for gap in gaps:
        at += gap
        moments.append(at + pace.take(at))
    assert moments == sorted(moments), "first come, first served"
    for i in range(len(moments)):
        for j in range(i + 1, min(i + 30, len(moments))):
            assert j - i <= (moments[j] - moments[i] + BURST_S) * rate + 1e-6


def test_a_crowd_goes_at_the_rate() -> None:
    pace = Pace(10.0)
    waits = [pace.take(100.0) for _ in range(22)]
    assert waits[0] == 0.0
    assert waits[21] == pytest.approx(2.0)
    assert pace.wait_s(100.0) > 1.0


def test_a_new_rate_holds_from_the_next_one_on() -> None:
    pace = Pace(1.0)
    pace.take(0.0)
    pace.rate = 100.0
    pace.take(0.0)
    assert pace.take(0.0) <= 1.02
