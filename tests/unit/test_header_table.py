"""Headers that strangers wrote: what can be read is, whatever the rest, and in bounded time."""

import struct
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pamqp import encode

from broker.port import DEATH_QUEUE, DEATH_REASON
from broker.rabbitmq.header_table import MOST_FIELDS, delivery_count, read_headers

#: Some 20 times what the largest table takes on an idle machine.
SECONDS = 0.5
LARGEST = 131_000


def table(*fields: bytes) -> bytes:
    inner = b"".join(fields)
    return struct.pack(">I", len(inner)) + inner


def field(name: bytes, value: bytes) -> bytes:
    return bytes((len(name),)) + name + value


def text(value: bytes) -> bytes:
    return b"S" + struct.pack(">I", len(value)) + value


def nested(depth: int, kind: bytes) -> bytes:
    value = b"V"
    for _ in range(depth):
        inner = field(b"n", value) if kind == b"F" else value
        value = kind + struct.pack(">I", len(inner)) + inner
    return value


PLAIN = field(b"plain", text(b"kept"))
ODD = [
    field(b"t", b"T" + struct.pack(">Q", 1_790_000_000_000_000)),
    field(b"t", b"T" + b"\xff" * 8),
    field(b"\xff\xfe", text(b"x")),
    field(b"deep", nested(2_000, b"F")),
    field(b"deep", nested(2_000, b"A")),
    field(b"d", b"D\xff\xff\xff\xff\xff"),
    field(b"f", b"d" + struct.pack(">d", float("nan"))),
    field(b"n" * 255, text(b"x")),
    field(b"", b"V"),
]


@pytest.mark.parametrize("odd", ODD)
def test_what_cannot_be_read_is_left_out_and_what_is_beside_it_is_read(odd: bytes) -> None:
    found = read_headers(table(odd, PLAIN, field(b"x-delivery-count", b"l" + struct.pack(">q", 6))))
    assert {name: value for name, value in found.items() if name} == {"plain": "kept", "x-delivery-count": 6}
    assert delivery_count(table(odd, field(b"x-delivery-count", b"b\x05"))) == 5


@pytest.mark.parametrize("broken", [b"?", b"S\xff\xff\xff\xff", b"F\x00\x00", b"l\x00", b""])
def test_what_stands_before_a_broken_field_is_read(broken: bytes) -> None:
    assert read_headers(table(PLAIN, field(b"broken", broken))) == {"plain": "kept"}


@given(st.binary(max_size=300))
def test_no_bytes_raise(raw: bytes) -> None:
    for one in (
        raw,
        table(raw),
        table(field(b"x-delivery-count", raw)),
        table(field(b"x-death", b"A" + raw)),
    ):
        read_headers(one)
        assert delivery_count(one) >= -(2**63)


plain = st.text(st.characters(codec="utf-8"), max_size=20) | st.booleans() | st.integers(-(2**63), 2**63 - 1)
odd = (
    st.none()
    | st.floats(width=32)
    | st.lists(plain, max_size=2)
    | st.dictionaries(st.text("ab"), plain, max_size=2)
)


@given(st.dictionaries(st.text("abcdefgh-", min_size=1, max_size=20), plain | odd, max_size=6))
def test_texts_numbers_and_truths_are_read_as_the_library_writes_them(headers: Any) -> None:
    kept = {name: value for name, value in headers.items() if isinstance(value, str | int)}
    assert read_headers(encode.field_table(headers)) == kept


@pytest.mark.parametrize(
    "large",
    [
        table(field(b"", b"V") * (LARGEST // 2)),
        table(field(b"x-delivery-countx", b"V") * (LARGEST // 20)),
        table(field(b"a", text(b"\xff" * LARGEST))),
        table(field(b"a", nested(LARGEST // 8, b"F"))),
        table(field(b"x-death", b"A" + struct.pack(">I", LARGEST) + b"V" * LARGEST)),
    ],
)
def test_the_largest_table_takes_no_longer_than_its_bytes(large: bytes) -> None:
    began = time.process_time()
    read_headers(large)
    delivery_count(large)
    assert time.process_time() - began < SECONDS


def death(queue: bytes, reason: bytes) -> bytes:
    one = field(b"queue", text(queue)) + field(b"reason", text(reason))
    return b"F" + struct.pack(">I", len(one)) + one


def deaths(*entries: bytes) -> bytes:
    inner = b"".join(entries)
    return field(b"x-death", b"A" + struct.pack(">I", len(inner)) + inner)


def test_the_queue_that_gave_a_message_up_is_the_broker_s_word_and_no_sender_s() -> None:
    forged = field(DEATH_QUEUE.encode(), text(b"postbote.outbound.p00"))
    own = deaths(death(b"postbote.messages", b"expired"), death(b"theirs", b"rejected"))
    told = {DEATH_QUEUE: "postbote.messages", DEATH_REASON: "expired"}
    assert read_headers(table(forged, own)) == told
    # A second table of deaths is the sender's: the broker writes the first.
    assert read_headers(table(own, deaths(death(b"postbote.outbound.p00", b"x")), forged)) == told
    assert read_headers(table(forged)) == {}
    many = field(b"a", b"V") * MOST_FIELDS
    assert read_headers(table(forged, many, own)) == {DEATH_QUEUE: ""}


def test_of_two_fields_of_one_name_the_first_counts_also_where_it_is_left_out() -> None:
    assert read_headers(table(field(b"a", nested(1, b"A")), field(b"a", text(b"second")), PLAIN)) == {
        "plain": "kept"
    }
    assert read_headers(table(field(b"a", text(b"first")), field(b"a", text(b"second")))) == {"a": "first"}


@pytest.mark.parametrize("name", [b"CC", b"BCC"])
def test_headers_by_which_the_broker_routes_are_left_out(name: bytes) -> None:
    assert read_headers(table(field(name, text(b"elsewhere")), PLAIN)) == {"plain": "kept"}
