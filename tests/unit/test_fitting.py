"""Headers are cut to what the broker can carry, the smallest whole."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from pamqp import encode

from broker.fitting import fit_headers, headers_size

values = st.text(st.characters(codec="utf-8"), max_size=60) | st.booleans() | st.integers(-(2**63), 2**63 - 1)
tables = st.dictionaries(st.text(st.characters(codec="utf-8"), max_size=30), values, max_size=8)


@given(tables, st.integers(-10, 600))
def test_what_is_left_takes_no_more_than_the_room_and_is_what_was_or_its_beginning(
    headers: Any, room: int
) -> None:
    fitting = fit_headers(headers, room)
    assert len(encode.field_table(dict(fitting))) - 4 <= max(room, 0)
    assert headers_size(fitting) <= max(room, 0)
    for name, value in fitting.items():
        assert headers[name] == value or headers[name].startswith(value)
    if headers_size(headers) <= room:
        assert fitting == headers
