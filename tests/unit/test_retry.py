"""The retry policy: pure decisions, checked over all inputs that can occur."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.registry.records import Channel, Webhook
from consumers.retry import Answer, Decision, Delivered, Disable, GiveUp, Policy, Schedule, TryAgain, decide

SCHEDULE = Schedule()
POLICY = Policy(SCHEDULE, 604_800.0)
LENGTH = len(SCHEDULE.head) + len(SCHEDULE.tail)


def after(answer: Answer, attempts: int, in_memory_s: float = 0.0, chance: float = 0.5) -> Decision:
    return decide(POLICY, answer, attempts=attempts, in_memory_s=in_memory_s, age_s=0.0, chance=chance)


@pytest.mark.parametrize("code", [200, 201, 204, 299])
def test_any_2xx_is_delivered(code: int) -> None:
    assert after(Answer(code), 1) == Delivered()


def test_the_head_is_tried_from_memory_at_the_documented_waits() -> None:
    waited, waits = 0.0, []
    for attempt in range(1, 5):
        decision = after(Answer(500), attempt, waited)
        assert isinstance(decision, TryAgain)
        assert decision.from_ == "memory"
        waits.append(decision.wait_s)
        waited += decision.wait_s
    assert waits == [0.5, 2, 5, 15]
    assert waited < 60


def test_the_tail_goes_through_the_backlog_for_a_day_and_then_the_message_is_kept_as_dead() -> None:
    decisions = [after(Answer(None), attempt, float("inf")) for attempt in range(5, LENGTH + 1)]
    assert [d.wait_s for d in decisions if isinstance(d, TryAgain)] == [
        60,
        300,
        1800,
        7200,
        18_000,
        36_000,
        36_000,
    ]
    assert after(Answer(None), LENGTH + 1) == GiveUp("12 attempts failed")


def test_slow_failures_leave_memory_before_a_minute_is_over() -> None:
    # Four attempts that each hang for the whole timeout: the fifth must not be waited for in memory.
    decision = after(Answer(None), 4, in_memory_s=4 * 15 + 7.5)
    assert isinstance(decision, TryAgain)
    assert decision.from_ == "backlog"


def test_410_disables_the_webhook() -> None:
    assert isinstance(after(Answer(410), 1), Disable)


@pytest.mark.parametrize("code", [400, 401, 403, 404, 405, 413, 422, 451])
def test_a_refusal_is_tried_three_times_and_then_given_up(code: int) -> None:
    assert isinstance(after(Answer(code), 1), TryAgain)
    assert isinstance(after(Answer(code), 2), TryAgain)
    decision = after(Answer(code), 3)
    assert isinstance(decision, GiveUp)
    assert str(code) in decision.reason


@pytest.mark.parametrize("code", [301, 302, 307, 308, 408, 425, 429, 500, 502, 503, 599, 100])
def test_what_may_pass_is_tried_for_the_whole_schedule(code: int) -> None:
    assert all(isinstance(after(Answer(code), attempt), TryAgain) for attempt in range(1, LENGTH + 1))
    assert isinstance(after(Answer(code), LENGTH + 1), GiveUp)


def test_retry_after_is_honoured_and_clamped() -> None:
    assert after(Answer(429, retry_after_s=30), 1) == TryAgain(30, "memory")
    assert after(Answer(503, retry_after_s=120), 1) == TryAgain(120, "backlog")
    assert after(Answer(503, retry_after_s=10**9), 1) == TryAgain(3600, "backlog")
    # Asking for less than the schedule has does not make us hurry.
    assert after(Answer(503, retry_after_s=0), 6) == TryAgain(300, "backlog")


@given(
    code=st.one_of(st.none(), st.integers(100, 599)),
    attempts=st.integers(1, 40),
    in_memory_s=st.floats(0, 1e6),
    chance=st.floats(0, 1),
    retry_after=st.one_of(st.none(), st.floats(0, 1e9)),
)
def test_every_failure_is_tried_again_or_given_up_within_bounds(
    code: int | None, attempts: int, in_memory_s: float, chance: float, retry_after: float | None
) -> None:
    decision = after(Answer(code, retry_after), attempts, in_memory_s, chance)
    assert isinstance(decision, Delivered) == (code is not None and 200 <= code < 300)
    if isinstance(decision, TryAgain):
        planned = (*SCHEDULE.head, *SCHEDULE.tail)[attempts - 1]
        assert planned * 0.8 - 1e-9 <= decision.wait_s <= max(planned * 1.2 + 1e-9, 3600)
        if decision.from_ == "memory":
            assert in_memory_s + decision.wait_s <= SCHEDULE.memory_limit_s
    if attempts > LENGTH:
        assert not isinstance(decision, TryAgain)


def test_a_schedule_that_makes_no_sense_is_refused() -> None:
    with pytest.raises(ValueError, match="above zero"):
        Schedule(head=(0.0,))
    with pytest.raises(ValueError, match="jitter"):
        Schedule(jitter=1.0)


def test_a_schedule_of_its_own_is_headed_by_what_comes_within_half_a_minute() -> None:
    schedule = Schedule.of([1, 5, 10, 20, 300])
    assert (schedule.head, schedule.tail) == ((1, 5, 10), (20, 300))
    assert (Schedule.of([]).head, Schedule.of([]).tail) == ((), ())
    assert decide(
        Policy(Schedule.of([]), 3600), Answer(500), attempts=1, in_memory_s=0, age_s=0, chance=0.5
    ) == GiveUp("its one attempt failed")


def test_what_would_be_too_old_at_its_next_attempt_expires_now() -> None:
    policy = Policy(SCHEDULE, 100.0)
    assert policy.outlived(100.0) is None
    assert "100 s" in (policy.outlived(100.1) or "")

    def decided(age_s: float) -> Decision:
        return decide(policy, Answer(500), attempts=5, in_memory_s=1e9, age_s=age_s, chance=0.5)

    assert decided(39.9) == TryAgain(60.0, "backlog")
    late = decided(40.1)
    assert isinstance(late, GiveUp)
    assert late.status == "expired"


def test_a_webhooks_policy_goes_before_its_channels_and_that_before_the_default() -> None:
    at = datetime(2026, 1, 1, tzinfo=UTC)
    channel = Channel("ch", "n", {}, "v", 1, at, retry_schedule=[60], time_to_live_s=600)
    plain = Channel("ch", "n", {}, "v", 1, at)
    hook = Webhook("wh", "ch", "https://x", None, [], {}, "s", None, None, True, None, None, at)
    own = replace(hook, retry_schedule=[], time_to_live_s=5)
    assert POLICY.of(plain, hook) is POLICY
    assert POLICY.of(channel, hook) == Policy(Schedule.of([60]), 600)
    assert POLICY.of(channel, own) == Policy(Schedule.of([]), 5)
    assert POLICY.of(plain, replace(hook, time_to_live_s=5)) == Policy(SCHEDULE, 5)


@pytest.mark.parametrize(
    ("code", "alive"), [(200, True), (400, True), (404, True), (429, False), (500, False)]
)
def test_an_endpoint_that_refuses_one_message_is_alive(code: int, alive: bool) -> None:
    assert Answer(code).alive == alive
    assert not Answer(None).alive


def test_only_429_and_503_ask_for_the_whole_endpoint_to_be_left_alone() -> None:
    assert Answer(429, 30).rest_s == 30
    assert Answer(503, 30).rest_s == 30
    assert Answer(500, 30).rest_s is None
    assert Answer(429).rest_s is None
