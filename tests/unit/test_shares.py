"""Who gives way where a prefetch runs short: the hot lane and the slow owner, and nobody for their sake."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumers.shares import BUSY_PATIENCE_S, KNOWN_AFTER_S, PATIENCE_S, SHORT_FROM, Shares, patience_s

PLACES = 200


def holding(owners: dict[str, list[int]]) -> Shares:
    """Make shares in which each owner has lanes of these lengths."""
    shares = Shares(PLACES)
    for owner, lanes in owners.items():
        for length in lanes:
            for number in range(length):
                shares.take()
                shares.hold(owner, new_lane=number == 0)
    return shares


def test_a_hot_lane_gives_way_and_the_quiet_ones_beside_it_do_not() -> None:
    shares = holding({"a": [150, *[1] * 10], "b": [1]})
    assert shares.gives_way("a", 150, 150 * 0.9, 0.9, PATIENCE_S)
    assert not shares.gives_way("a", 1, 0.9, 0.9, PATIENCE_S)
    assert not shares.gives_way("b", 1, 0.9, 0.9, PATIENCE_S)


def test_a_slow_owner_with_many_quiet_lanes_gives_way() -> None:
    shares = holding({"a": [1] * 150, "b": [1]})
    assert shares.gives_way("a", 1, 3.0, 3.0, PATIENCE_S)
    assert not shares.gives_way("b", 1, 3.0, 3.0, PATIENCE_S), "a single message of another owner stays"


def test_a_quick_burst_stays_though_it_takes_every_place() -> None:
    shares = holding({"a": [PLACES]})
    assert not shares.gives_way("a", PLACES, PATIENCE_S, PATIENCE_S, PATIENCE_S)
    assert shares.gives_way("a", PLACES, PATIENCE_S * 1.1, 0.0, PATIENCE_S)


def test_heavy_messages_take_several_places() -> None:
    shares = Shares(PLACES)
    assert not shares.short
    shares.take(PLACES)
    shares.hold("a", PLACES, new_lane=True)
    assert shares.short
    assert shares.gives_way("a", PLACES, 1.0, 1.0, PATIENCE_S)
    shares.let_go("a", PLACES, lane_ended=True)
    shares.give_back(PLACES)
    assert not shares.short
    assert shares.held("a") == 0


def test_what_waits_elsewhere_is_let_in_up_to_its_part_and_always_one_by_one() -> None:
    short_from = PLACES // SHORT_FROM
    shares = Shares(PLACES)
    assert shares.room("quick", 0.001) == short_from, "no more than is taken before anything is short"
    assert 1 <= shares.room("hangs", 15.0) < short_from / 4
    shares.take(PLACES)
    assert shares.room("hangs", 15.0) == 1, "what waits goes on"
    shares.hold("hangs", new_lane=True)
    assert shares.room("hangs", 15.0) == 0
    shares.hold("others", 2 * PLACES, new_lane=True)
    assert shares.room("quick", 0.001) == 0, "memory is bounded, whatever waits"


@pytest.mark.parametrize("hanging", [1, 5, 20])
def test_owners_that_hang_are_left_a_small_part_however_many_they_are(hanging: int) -> None:
    # Each fills its part by one message after the other, until all of them would give way.
    shares = Shares(PLACES)
    grown = True
    while grown:
        grown = False
        for number in range(hanging):
            lanes = shares.held(f"hangs-{number}")
            if not lanes or not shares.gives_way(f"hangs-{number}", 1, 15.0, 15.0, PATIENCE_S):
                shares.take()
                shares.hold(f"hangs-{number}", new_lane=True)
                grown = True
    assert shares.taken <= PLACES // SHORT_FROM + 2 * hanging


def test_the_patience_grows_evenly_with_how_busy_the_process_is() -> None:
    assert patience_s(0.0) == patience_s(0.7) == PATIENCE_S
    assert patience_s(0.9) == patience_s(1.0) == BUSY_PATIENCE_S
    assert patience_s(0.8) == pytest.approx((PATIENCE_S + BUSY_PATIENCE_S) / 2)


def test_a_burst_is_borne_with_until_it_is_known_how_busy_it_makes_the_process() -> None:
    shares = holding({"a": [PLACES]})
    assert shares.short
    assert shares.patience_s(10.0, 0.0) == BUSY_PATIENCE_S
    assert shares.short
    assert shares.patience_s(10.1 + KNOWN_AFTER_S, 0.0) == PATIENCE_S
    shares.give_back(PLACES)
    assert not shares.short
    shares.take(PLACES)
    assert shares.short
    assert shares.patience_s(12.0, 0.0) == BUSY_PATIENCE_S


held = st.integers(1, PLACES)
seconds = st.floats(0.0, 100.0)


@given(held, held, seconds, seconds)
def test_nobody_gives_way_while_nothing_is_short_and_waiting_longer_never_helps(
    length: int, others: int, lane_s: float, owner_s: float
) -> None:
    shares = holding({"a": [length], "b": [1] * others})
    gives_way = shares.gives_way("a", length, lane_s, owner_s, PATIENCE_S)
    if not shares.short or max(lane_s, owner_s) <= PATIENCE_S:
        assert not gives_way
    if gives_way:
        assert shares.gives_way("a", length, lane_s * 2, owner_s * 2, PATIENCE_S)
        shares.take()
        assert shares.gives_way("a", length, lane_s, owner_s, PATIENCE_S), (
            "nor does it help that fewer are free"
        )


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("xyz"), st.integers(1, 5)), max_size=60))
def test_what_was_let_go_leaves_nothing_behind(messages: list[tuple[str, str, int]]) -> None:
    shares = Shares(PLACES)
    lanes: dict[tuple[str, str], list[int]] = {}
    for owner, user, count in messages:
        lane = lanes.setdefault((owner, user), [])
        shares.take(count)
        shares.hold(owner, count, new_lane=not lane)
        lane.append(count)
    for owner in "abc":
        assert shares.held(owner) == sum(sum(lane) for key, lane in lanes.items() if key[0] == owner)
    for (owner, _), lane in lanes.items():
        while lane:
            count = lane.pop()
            shares.let_go(owner, count, lane_ended=not lane)
            shares.give_back(count)
    assert shares.taken == 0
    assert not shares._held
    assert not shares._lanes
