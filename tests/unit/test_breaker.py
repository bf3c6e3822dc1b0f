"""The circuit breaker against the rules that operators are told, whatever happens in whatever order."""

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from consumers.breaker import Admission, Breaker, Tuning

TUNING = Tuning(window=8, memory_s=60.0, least=4, rate=0.5, open_s=5.0, longest_open_s=20.0)


def fail(breaker: Breaker, times: int, at: float) -> list[str | None]:
    return [breaker.record("free", False, at) for _ in range(times)]


def test_it_opens_on_a_failure_rate_over_a_minimum_of_tries() -> None:
    breaker = Breaker(TUNING)
    assert fail(breaker, 4, 0.0) == [None, None, None, "opened"]
    assert breaker.admit(4.9) is None
    assert breaker.wait_s(3.0) == 2.0


def test_a_few_failures_among_many_successes_do_not_open_it() -> None:
    breaker = Breaker(TUNING)
    for number in range(100):
        assert breaker.record("free", number % 4 != 0, number / 10) is None
    assert breaker.closed


def test_failures_of_long_ago_do_not_count() -> None:
    breaker = Breaker(TUNING)
    for number in range(20):
        assert breaker.record("free", False, number * 61.0) is None


def test_one_probe_decides_and_each_that_fails_doubles_the_wait() -> None:
    breaker = Breaker(TUNING)
    fail(breaker, 4, 0.0)
    at, waits = 0.0, []
    for _ in range(4):
        wait = breaker.wait_s(at)
        waits.append(wait)
        at += wait
        assert breaker.admit(at) == "probe"
        assert breaker.admit(at) is None, "one probe at a time"
        assert breaker.record("probe", False, at) is None
    assert waits == [5.0, 10.0, 20.0, 20.0]
    at += breaker.wait_s(at)
    assert breaker.admit(at) == "probe"
    assert breaker.record("probe", True, at) == "closed"
    assert breaker.admit(at) == "free"
    fail(breaker, 4, at)
    assert breaker.wait_s(at) == 5.0, "having been closed, it begins with the short wait"


def test_attempts_that_began_before_it_opened_tell_nothing_new() -> None:
    breaker = Breaker(TUNING)
    fail(breaker, 4, 0.0)
    assert breaker.record("free", True, 1.0) is None
    assert breaker.record("free", False, 1.0) is None
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
    assert breaker.rest(30.0, 100.0) == "opened"
    assert breaker.admit(129.9) is None
    assert breaker.admit(130.0) == "probe"
    assert breaker.record("probe", True, 130.1) == "closed"


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
    @rule(which=st.integers(0, 10_000), well=st.booleans())
    def end(self, which: int, well: bool) -> None:
        admission = self.under_way.pop(which % len(self.under_way))
        was_closed = self.breaker.closed
        change = self.breaker.record(admission, well, self.at)
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

    @rule(seconds=st.floats(0.1, 100))
    def rest(self, seconds: float) -> None:
        self.breaker.rest(seconds, self.at)
        assert self.breaker.wait_s(self.at) >= seconds * 0.999

    @invariant()
    def never_stuck(self) -> None:
        """However it stands: with nobody under way, an attempt is admitted once the time is up."""
        if not self.under_way:
            wait = self.breaker.wait_s(self.at)
            assert wait <= 101
            later = self.at + wait
            admission = self.breaker.admit(later + 1e-6)
            assert admission is not None
            self.breaker.abandon(admission)


TestAnyOrder = AnyOrder.TestCase
