"""Room admits in order, bounds what is in hand, and never keeps the last one out."""

import json

from hypothesis import given
from hypothesis import strategies as st

from broker.room import COPIES, LEAST_SHARE, LIGHT, Room, share_of, weight


def test_what_takes_many_times_its_size_when_it_is_read_weighs_so() -> None:
    flat = json.dumps({"text": "x" * 100_000}).encode()
    nested = json.dumps([[] for _ in range(25_000)]).encode()
    assert len(nested) <= len(flat)
    assert weight(nested) > 5 * weight(flat)
    assert weight(b"[]") == weight(b"x" * LIGHT) == COPIES * LIGHT


def test_a_share_is_never_too_small_to_work_with() -> None:
    assert share_of(64 * 2**20, 16) == 4 * 2**20
    assert share_of(2**20, 100) == LEAST_SHARE


@given(
    st.lists(st.integers(1, 300), max_size=40),
    st.lists(st.integers(0, 40), max_size=80),
    st.integers(1, 500),
)
def test_all_come_in_one_after_the_other_and_together_never_weigh_more_than_there_is_room(
    weights: list[int], leaving: list[int], most: int
) -> None:
    room, inside, next_ = Room(most), dict[int, int](), 0
    for leaves in [*leaving, *range(len(weights) + 1)]:
        while next_ < len(weights) and room.admit(next_, weights[next_]):
            inside[next_] = weights[next_]
            next_ += 1
        assert sum(inside.values()) <= most or len(inside) == 1
        assert room.left == most - sum(inside.values())
        assert inside or next_ == len(weights), "one is admitted where nothing is in hand"
        room.leave(leaves)
        inside.pop(leaves, None)
    for tag in range(len(weights)):
        room.leave(tag)
    assert room.left == most or next_ < len(weights)
