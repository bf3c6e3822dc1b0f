"""Room for lanes is shared out fairly among the webhooks that have a backlog."""

from hypothesis import given
from hypothesis import strategies as st

from consumers.backlog import share


@given(
    room=st.integers(1, 300),
    rooms=st.dictionaries(st.text("abcdef", min_size=1, max_size=4), st.integers(0, 80), max_size=50),
)
def test_nobody_gets_more_than_it_has_room_for_nor_much_more_than_another(
    room: int, rooms: dict[str, int]
) -> None:
    shares = share(room, rooms)
    assert sum(shares.values()) == min(room, sum(rooms.values()))
    assert all(0 < shares[webhook] <= rooms[webhook] for webhook in shares)
    # Whoever got less than they could take got at least as much, but for one, as anybody else.
    least = min((shares.get(w, 0) for w, most in rooms.items() if shares.get(w, 0) < most), default=None)
    if least is not None:
        assert max(shares.values()) <= max(least * 2 + 1, room // max(1, len(shares)) + 1)
