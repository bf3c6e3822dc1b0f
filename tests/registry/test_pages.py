"""Cursors come back as they were written, and nothing else is taken for one."""

from datetime import UTC, datetime

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from broker.registry.pages import cursor_of, read_cursor

moments = st.datetimes(
    datetime(1970, 1, 1), datetime(9999, 12, 31, 23, 59, 59, 999_999), timezones=st.just(UTC)
)


@given(moments, st.text(st.characters(codec="utf-8", exclude_characters="\x00")), st.integers(0, 2**57))
@example(datetime(2038, 1, 19, 3, 14, 7, 999_999, UTC), "", 0)
def test_a_cursor_is_read_as_it_was_written(moment: datetime, key: str, number: int) -> None:
    cursor = cursor_of(moment, key, number)
    assert cursor.isascii()
    assert not set(cursor) & set("+/=?&# ")
    assert read_cursor(cursor, datetime, str, int) == [moment, key, number]


@given(
    st.text()
    | st.lists(st.integers() | st.text(st.characters(codec="utf-8")), max_size=3).map(lambda v: cursor_of(*v))
)
@example("")
@example("=")
@example("é")
@example("\x00")
@example("W10")
@example(cursor_of(-1, "a"))
@example(cursor_of(2**63, "a"))
@example(cursor_of(2**59, "a"))
def test_rubbish_is_refused_in_words(cursor: str) -> None:
    try:
        moment, key = read_cursor(cursor, datetime, str)
    except ValueError as error:
        assert "cursor" in str(error)  # noqa: PT017 - either outcome is right, and nothing else
    else:
        assert cursor_of(moment, key).rstrip("=") == cursor.rstrip("=")


def test_a_cursor_of_another_listing_is_refused() -> None:
    with pytest.raises(ValueError, match="another listing"):
        read_cursor(cursor_of(5), datetime, str)
    with pytest.raises(ValueError, match="another listing"):
        read_cursor(cursor_of(datetime(2026, 1, 1, tzinfo=UTC), "a"), int)
