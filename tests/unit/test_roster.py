"""Who lives, by what was heard: a worker that is cut off declares nobody dead."""

from hypothesis import given
from hypothesis import strategies as st

from consumers.roster import BEGIN_AFTER_S, CUT_OFF_AFTER_S, DEAD_AFTER_S, GATHERING_S, Roster


def begun(*others: str) -> Roster:
    roster = Roster("me", 0.0)
    for worker in ("me", *others):
        roster.hear(worker, 0.0)
    assert roster.live(GATHERING_S + 0.01) == {"me", *others}
    return roster


def test_it_knows_nothing_before_it_has_gathered_the_others() -> None:
    roster = Roster("me", 0.0)
    roster.hear("other", 0.1)
    assert roster.live(0.2) is None
    roster.hear("me", 0.3)
    assert roster.live(0.3 + GATHERING_S / 2) is None
    assert roster.live(0.3 + GATHERING_S) == {"me", "other"}


def test_a_worker_that_falls_silent_is_dead_after_a_while_and_one_that_leaves_at_once() -> None:
    roster = begun("silent", "leaver", "lively")
    at = 0.0
    while at < DEAD_AFTER_S + 1:
        at += 1.0
        roster.hear("me", at)
        roster.hear("lively", at)
    assert roster.live(at) == {"me", "leaver", "lively"} - {"leaver"}
    roster.leave("lively")
    assert roster.live(at) == {"me"}


def test_whoever_does_not_hear_itself_declares_nobody_dead_and_gives_all_a_fresh_chance() -> None:
    roster = begun("other")
    assert roster.live(1000.0) == {"me", "other"}
    roster.hear("me", 1000.0)
    assert roster.live(1000.0) == {"me", "other"}
    for later in (2.0, 4.0, 6.0):
        roster.hear("me", 1000.0 + later)
    assert roster.live(1006.0) == {"me"}


def test_one_that_never_hears_itself_begins_all_the_same() -> None:
    roster = Roster("me", 0.0)
    roster.hear("other", 1.0)
    assert roster.live(BEGIN_AFTER_S - 0.1) is None
    assert roster.live(BEGIN_AFTER_S) == {"me", "other"}


@given(
    st.lists(st.tuples(st.floats(0, 2), st.sampled_from(["me", "a", "b", "leave a", "nobody"])), max_size=60)
)
def test_whatever_is_heard_when_it_lives_itself_and_none_that_spoke_just_now_is_dead(
    heard: list[tuple[float, str]],
) -> None:
    roster, at, last = Roster("me", 0.0), 0.0, {"a": -100.0, "b": -100.0, "me": -100.0}
    for pause, what in heard:
        at += pause
        if what == "leave a":
            roster.leave("a")
            last["a"] = -100.0
        elif what != "nobody":
            roster.hear(what, at)
            last[what] = at
        live = roster.live(at)
        if live is None:
            continue
        assert "me" in live
        if at - last["me"] <= CUT_OFF_AFTER_S:
            assert all(worker in live for worker in ("a", "b") if at - last[worker] <= DEAD_AFTER_S)
