"""Bodies in hand are bounded together and for each owner, and a small one of another owner always fits."""

from hypothesis import given
from hypothesis import strategies as st

from broker.api.body_room import PARTS, BodyRoom, Hold

MOST = 10_000


@given(
    st.lists(
        st.tuples(st.sampled_from("abcdef"), st.integers(1, 4_000), st.booleans(), st.integers(1, 4_000))
    )
)
def test_bodies_never_weigh_more_than_there_is_room_and_a_small_one_of_another_owner_fits(
    steps: list[tuple[str, int, bool, int]],
) -> None:
    room = BodyRoom(MOST)
    inside: list[Hold] = []
    for owner, weight, leaves, changed in steps:
        hold = room.admit(owner, weight)
        if hold is not None:
            inside.append(hold)
            assert room.change(hold, changed) == (hold.weight == changed)
        if leaves and inside:
            room.leave(inside.pop(0))
        assert room.left == MOST - sum(each.weight for each in inside) > 0
        stranger = room.admit("stranger", 1)
        assert stranger is not None or room.left < 2
        if stranger is not None:
            room.leave(stranger)
    for hold in inside:
        room.leave(hold)
    assert room.left == MOST


def test_one_owner_has_its_part_of_the_room_and_no_more() -> None:
    room = BodyRoom(MOST)
    taken = 0
    while room.admit("greedy", 100) is not None:
        taken += 100
    assert taken == MOST // PARTS
    assert room.admit("other", MOST // PARTS) is not None


def test_a_body_heavier_than_all_room_is_taken_where_nothing_else_is_in_hand() -> None:
    room = BodyRoom(MOST)
    hold = room.admit("a", 2 * MOST)
    assert hold is not None
    assert room.admit("b", 1) is None
    room.leave(hold)
    assert room.admit("b", 1) is not None


def test_a_body_that_turns_out_too_heavy_keeps_the_place_that_it_had() -> None:
    room = BodyRoom(MOST)
    first, second = room.admit("a", 100), room.admit("b", 100)
    assert first is not None
    assert second is not None
    assert not room.change(first, MOST)
    assert room.left == MOST - 200
    assert room.change(first, 10)
    assert room.left == MOST - 110
