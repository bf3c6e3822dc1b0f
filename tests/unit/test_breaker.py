"""The circuit breaker against the rules that operators are told, whatever happens in whatever order."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from consumers.breaker import Admission, Breaker, Tuning

TUNING = Tuning(window=8, memory_s=60.0, least=4, rate=0.5, open_s=5.0, longest_open_s=20.0)
#: Chances: the one that makes waits longest, and from 0 to 1.
LONGEST = 0.0
chances = st.floats(0, 1)


def fail(breaker: Breaker, times: int, at: float) -> list[str | None]:
    return [breaker.record("free", False, at, LONGEST) for _ in range(times)]


def probe(
    breaker: Breaker, at: float, *, well: bool = False, lasts_s: float = 0.0, chance: float = LONGEST
) -> float:
    """Wait until a probe may be made, make it, and return the moment of its end."""
    at += breaker.wait_s(at)
    assert breaker.admit(at) == "probe"
    assert breaker.admit(at) is None, "one probe at a time"
    assert breaker.record("probe", well, at + lasts_s, chance) == ("closed" if well else None)
    return at + lasts_s


def test_it_opens_on_a_failure_rate_over_a_minimum_of_tries() -> None:
    breaker = Breaker(TUNING)
    assert fail(breaker, 4, 0.0) == [None, None, None, "opened"]
    assert breaker.admit(4.9) is None
    assert breaker.wait_s(3.0) == 2.0


def test_a_few_failures_among_many_successes_do_not_open_it() -> None:
    breaker = Breaker(TUNING)
    for number in range(100):
        assert breaker.record("free", number % 4 != 0, number / 10, LONGEST) is None
    assert breaker.closed


def test_failures_of_long_ago_do_not_count() -> None:
    breaker = Breaker(TUNING)
    for number in range(20):
        assert breaker.record("free", False, number * 61.0, LONGEST) is None


def test_one_probe_decides_and_the_waits_follow_the_time_that_it_has_been_open() -> None:
    breaker = Breaker(TUNING)
    fail(breaker, 4, 0.0)
    at, waits = 0.0, []
    for _ in range(40):
        waits.append(breaker.wait_s(at))
        at = probe(breaker, at)
    assert waits[:9] == [5.0] * 9
    assert all(wait == max(5.0, min(sum(waits[:n]) / 8, 20.0)) for n, wait in enumerate(waits))
    assert waits[-1] == 20.0
    at = probe(breaker, at, well=True)
    assert breaker.admit(at) == "free"
    fail(breaker, 4, at)
    assert breaker.wait_s(at) == 5.0, "having been closed, it begins with the short wait"


def test_a_probe_that_takes_long_is_made_seldom() -> None:
    breaker = Breaker(TUNING)
    fail(breaker, 4, 0.0)
    at = probe(breaker, 0.0, lasts_s=8.0)
    assert breaker.wait_s(at) == 16.0
    at = probe(breaker, at, lasts_s=15.0)
    assert breaker.wait_s(at) == 20.0, "the longest wait holds for these too"
    at = probe(breaker, at)
    assert breaker.wait_s(at) < 10.0


@given(away_s=st.floats(0, 3600), chance=chances, drawn=st.randoms(use_true_random=False))
def test_an_endpoint_is_asked_within_an_eighth_of_the_time_that_it_was_away(
    away_s: float, chance: float, drawn: random.Random
) -> None:
    breaker = Breaker(Tuning())
    for _ in range(10):
        breaker.record("free", False, 0.0, chance)
    at = 0.0
    while at <= away_s:
        began = at
        at = probe(breaker, at, chance=drawn.random())
        assert at - began >= 2.5 - 1e-6, "it is left alone in between"
    assert at - away_s <= max(5.0, min(away_s / 8, 60.0)) + 1e-6


@pytest.mark.parametrize("away_s", [30.0, 120.0, 1000.0])
@pytest.mark.parametrize("seed", range(5))
def test_endpoints_that_failed_together_are_not_asked_together(away_s: float, seed: int) -> None:
    draw = random.Random(seed)
    asked = []
    for _ in range(200):
        breaker = Breaker(Tuning())
        for _ in range(10):
            breaker.record("free", False, 0.0, draw.random())
        at = 0.0
        while at <= away_s:
            at = probe(breaker, at, chance=draw.random())
        asked.append(at - away_s)
    span = max(5.0, min(away_s / 8, 60.0)) / 5
    fullest = max(sum(n * span <= at < (n + 1) * span for at in asked) for n in range(6))
    assert fullest < 100, "in no fifth of the time that all of them take is half of them asked"


def test_attempts_that_began_before_it_opened_tell_nothing_new() -> None:
    breaker = Breaker(TUNING)
    fail(breaker, 4, 0.0)
    assert breaker.record("free", True, 1.0, LONGEST) is None
    assert breaker.record("free", False, 1.0, LONGEST) is None
    assert not breaker.closed
    assert breaker.wait_s(1.0) == 4.0


def test_a_probe_that_was_not_made_leaves_the_place_to_another() -> None:
    breaker = Breaker(TUNING)
    fail(breaker, 4, 0.0)
    assert breaker.admit(5.0) == "probe"
    breaker.abandon("probe")
    assert breaker.admit(5.0) == "probe"


def test_an_endpoint_that_asks_for_rest_gets_it_and_is_probed_then() -> None:
    breaker = Breaker(TUNING)
    assert breaker.rest(30.0, 100.0, 0.0) == "opened"
    assert breaker.admit(129.9) is None
    assert breaker.admit(130.0) == "probe"
    assert breaker.record("probe", True, 130.1, LONGEST) == "closed"


@given(seconds=st.floats(0.1, 3600), chance=chances)
def test_a_rest_is_never_shorter_than_asked_for_and_little_longer(seconds: float, chance: float) -> None:
    breaker = Breaker(TUNING)
    breaker.rest(seconds, 0.0, chance)
    assert seconds <= breaker.wait_s(0.0) <= seconds + 2.5
    assert breaker.wait_s(0.0) <= 1.5 * seconds + 1e-6


class AnyOrder(RuleBasedStateMachine):
    """Attempts begin, end, and are abandoned in any order, at any time."""

    def __init__(self) -> None:
        super().__init__()
        self.breaker = Breaker(TUNING)
        self.at = 0.0
        self.under_way: list[Admission] = []
        self.recent: list[tuple[float, bool]] = []

    @rule(seconds=st.floats(0, 30))
    def time_passes(self, seconds: float) -> None:
        self.at += seconds

    @rule()
    def begin(self) -> None:
        admission = self.breaker.admit(self.at)
        assert (admission is not None) == (self.breaker.closed or admission == "probe")
        if admission is not None:
            self.under_way.append(admission)

    @precondition(lambda self: self.under_way)
    @rule(which=st.integers(0, 10_000), well=st.booleans(), chance=chances)
    def end(self, which: int, well: bool, chance: float) -> None:
        admission = self.under_way.pop(which % len(self.under_way))
        was_closed = self.breaker.closed
        change = self.breaker.record(admission, well, self.at, chance)
        if change == "opened":
            assert was_closed
            assert not well
        if change == "closed":
            assert admission == "probe"
            assert well
        assert (change is not None) == (was_closed != self.breaker.closed)

    @precondition(lambda self: self.under_way)
    @rule(which=st.integers(0, 10_000))
    def abandon(self, which: int) -> None:
        self.breaker.abandon(self.under_way.pop(which % len(self.under_way)))

    @rule(seconds=st.floats(0.1, 100), chance=chances)
    def rest(self, seconds: float, chance: float) -> None:
        self.breaker.rest(seconds, self.at, chance)
        assert self.breaker.wait_s(self.at) >= seconds * 0.999

    @invariant()
    def never_stuck(self) -> None:
        """However it stands: with nobody under way, an attempt is admitted once the time is up."""
        if not self.under_way:
            wait = self.breaker.wait_s(self.at)
            assert wait <= 103
            later = self.at + wait
            admission = self.breaker.admit(later + 1e-6)
            assert admission is not None
            self.breaker.abandon(admission)


TestAnyOrder = AnyOrder.TestCase
