"""Tables in the documentation: written between their marks, and nothing around them changes."""

import pytest

from bench.results import lay_out, put_between

PAGE = "before\n<!-- one: begin -->\nold\n<!-- one: end -->\nbetween\n<!-- two: begin -->\n<!-- two: end -->\nafter\n"


def test_a_table_takes_the_place_of_the_one_before_and_of_nothing_else() -> None:
    table = lay_out(("what", "here"), [["a", "1"], ["b", "2"]])
    once = put_between(PAGE, "one", table)
    assert once == PAGE.replace("old", "| what | here |\n| --- | --- |\n| a | 1 |\n| b | 2 |")
    assert put_between(once, "one", table) == once
    assert put_between(once, "two", table).count(table) == 2


@pytest.mark.parametrize("page", ["no marks", "<!-- one: begin -->\nno end", "<!-- one: end -->"])
def test_a_page_without_marks_is_refused_and_says_which(page: str) -> None:
    with pytest.raises(ValueError, match="<!-- one: begin -->"):
        put_between(page, "one", "table")
