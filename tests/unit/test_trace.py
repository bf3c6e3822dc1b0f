"""W3C trace context: kept where it is valid, begun anew where it is not."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.trace import child, new_traceparent, traceparent_of

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
VALID = f"00-{TRACE}-{SPAN}-01"
SHAPE = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")


@pytest.mark.parametrize(
    "given_", [VALID, f" {VALID}\t", f"cc-{TRACE}-{SPAN}-01", f"cc-{TRACE}-{SPAN}-01-what-the-future-brings"]
)
def test_a_valid_one_goes_on(given_: str) -> None:
    assert traceparent_of(given_) == VALID


@pytest.mark.parametrize(
    "given_",
    [
        None,
        7,
        "",
        "rubbish",
        VALID.upper(),
        f"00-{TRACE}-{SPAN}-01-more",
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE}-{SPAN}-1",
        f"00-{TRACE}-{SPAN}-01\n",
        f"cc-{TRACE}-{SPAN}-01-" + "x" * 1000,
    ],
)
def test_an_invalid_one_is_replaced(given_: object) -> None:
    made = traceparent_of(given_)
    assert SHAPE.fullmatch(made)
    assert TRACE not in made
    assert traceparent_of(given_) != made


@given(st.text())
def test_whatever_comes_in_a_valid_one_comes_out(text: str) -> None:
    assert SHAPE.fullmatch(traceparent_of(text))


def test_a_child_is_another_span_of_the_same_trace() -> None:
    parent = new_traceparent()
    steps = {child(parent) for _ in range(10)}
    assert len(steps) == 10
    assert parent not in steps
    for step in steps:
        assert SHAPE.fullmatch(step)
        assert step.split("-")[1] == parent.split("-")[1]
    assert child(f"00-{TRACE}-{SPAN}-00").endswith("-00")
