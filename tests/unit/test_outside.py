"""What outside programs publish is unpacked within bounds, and never raises anything but its reason."""

import gzip
import time
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.port import Envelope
from consumers.dead_letters import dead_letter
from consumers.outside import LARGEST_BODY, MOST_MEMBERS, named_channel, read_body

PACKED = {"content-encoding": "GZIP "}
#: Some 20 times what the worst takes on an idle machine.
SECONDS = 0.5


def packed(body: bytes) -> Envelope:
    return Envelope("m", body, properties=PACKED)


@given(st.binary(max_size=200), st.booleans(), st.binary(max_size=20))
def test_any_bytes_are_a_body_or_a_reason(body: bytes, as_gzip: bool, cut: bytes) -> None:
    for one in (packed(body), packed(gzip.compress(body)[: -len(cut) or None] + cut), Envelope("m", body)):
        with suppress(ValueError):
            assert len(read_body(one)) <= LARGEST_BODY
        named_channel(one)


@given(st.lists(st.binary(max_size=50), min_size=1, max_size=4))
def test_a_packed_body_is_read_as_it_was_in_however_many_members(parts: list[bytes]) -> None:
    whole = b"".join(parts)
    expected = whole.removeprefix(b"\xef\xbb\xbf")
    assert read_body(packed(b"".join(map(gzip.compress, parts)))) == expected
    assert (
        read_body(Envelope("m", gzip.compress(whole), headers={"amqp-content-encoding": "gzip"})) == expected
    )


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (gzip.compress(b"x" * 100_000_000), "unpacked"),
        (gzip.compress(b"") * (LARGEST_BODY // 20), f"more than {MOST_MEMBERS} members"),
        (b"\x1f\x8b" * (LARGEST_BODY // 2), "is gzip, and is not"),
        (b"", "ends early"),
    ],
)
def test_what_is_packed_to_cost_much_costs_little(body: bytes, why: str) -> None:
    began = time.process_time()
    with pytest.raises(ValueError, match=why):
        read_body(packed(body))
    named_channel(packed(body))
    assert time.process_time() - began < SECONDS


def test_a_dead_letter_says_how_large_a_body_was_of_which_only_the_beginning_came() -> None:
    letter = dead_letter(Envelope("m", b"xx", "k", whole=3_000_000))
    assert letter.body == b"xx"
    assert "of its body of 3,000,000 bytes" in letter.detail
