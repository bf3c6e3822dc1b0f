"""How long a bot takes is known by its last answers, and by those that do not come."""

import pytest

from consumers import bot_times
from consumers.bot_times import BotTimes


class Clock:
    """A clock that is set by hand."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def answer(times: BotTimes, clock: Clock, lasts_s: float, channel: str = "ch") -> None:
    number = times.began(channel)
    clock.now += lasts_s
    times.ended(channel, number)


def test_the_last_answers_weigh_most(clock: Clock) -> None:
    times = BotTimes(clock)
    assert times.expected_s("ch") == 0.0
    answer(times, clock, 1.0)
    assert times.expected_s("ch") == pytest.approx(1.0)
    for _ in range(20):
        answer(times, clock, 0.0)
    assert 0.0 < times.expected_s("ch") < 0.02
    assert times.expected_s("another") == 0.0


def test_a_bot_that_hangs_takes_as_long_as_half_of_what_it_is_asked_has_waited(clock: Clock) -> None:
    times = BotTimes(clock)
    answer(times, clock, 0.1)
    for _ in range(3):
        times.began("ch")
        clock.now += 5.0
    assert times.expected_s("ch") == pytest.approx(10.0)
    # One of its answers takes long: that says nothing about the others.
    other = BotTimes(clock)
    answer(other, clock, 0.1)
    other.began("ch")
    clock.now += 5.0
    for _ in range(4):
        other.began("ch")
    assert other.expected_s("ch") == pytest.approx(0.1)


def test_of_many_channels_those_asked_longest_ago_are_forgotten_but_none_that_is_being_asked(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bot_times, "MOST_CHANNELS", 10)
    times = BotTimes(clock)
    number = times.began("hangs")
    for place in range(100):
        answer(times, clock, 1.0, f"ch-{place}")
    assert times.expected_s("ch-99") == pytest.approx(1.0)
    assert times.expected_s("ch-0") == 0.0
    times.ended("hangs", number)
    assert times.expected_s("hangs") == pytest.approx(100.0)
