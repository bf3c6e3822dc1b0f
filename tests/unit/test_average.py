"""An average of the last seconds."""

import pytest

from consumers.average import Average


def test_it_is_of_the_last_seconds_and_a_moments_stall_does_not_outweigh_them() -> None:
    average = Average(1.0)
    assert average.mean == 0.0
    for number in range(1000):
        average.add(0.01, number / 1000)
    for _ in range(60):
        average.add(0.5, 0.999)
    assert average.mean < 0.05


def test_what_was_is_forgotten_within_two_windows_of_answers() -> None:
    average = Average(1.0)
    average.add(15.0, 10.0)
    assert average.mean == 15.0, "one is all that is known"
    average.add(0.1, 100.0)
    assert average.mean == pytest.approx(7.55)
    average.add(0.1, 101.0)
    assert average.mean == pytest.approx(0.1)
