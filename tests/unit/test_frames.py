"""What the hot path writes is read as the client library would have written it."""

from typing import Any

import pamqp.frame
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pamqp import body, commands, header

from broker.errors import Unpublishable
from broker.rabbitmq.frames import acknowledgements, publication, read_properties

names = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=60)
headers = st.dictionaries(
    st.text("abcdefgh-", min_size=1, max_size=20),
    names | st.booleans() | st.integers(-(2**63), 2**63 - 1),
    max_size=4,
)


def unmarshalled(data: bytes) -> list[tuple[int, Any]]:
    found = []
    while data:
        size, channel, frame = pamqp.frame.unmarshal(data)
        found.append((channel, frame))
        data = data[size:]
    return found


@given(
    st.integers(1, 65535),
    names,
    names,
    names,
    headers,
    st.binary(max_size=300),
    st.integers(1, 400),
    names,
)
def test_the_library_reads_what_was_said(
    channel: int,
    exchange: str,
    key: str,
    message_id: str,
    table: dict[str, Any],
    content: bytes,
    largest: int,
    kind: str,
) -> None:
    taken = len(pamqp.encode.field_table(table)) + len(message_id.encode()) + 33
    taken += 1 + len(kind.encode()) if kind else 0
    if taken > largest:
        with pytest.raises(Unpublishable) as refusal:
            publication(channel, exchange, key, message_id, table, content, largest, kind)
        room = max(largest - taken + len(pamqp.encode.field_table(table)) - 4, 0)
        assert refusal.value.headers_room == room
        return
    written = publication(channel, exchange, key, message_id, table, content, largest, kind)
    (on, method), (also_on, head), *parts = unmarshalled(written)
    assert isinstance(method, commands.Basic.Publish)
    assert (method.exchange, method.routing_key, method.mandatory, method.immediate) == (
        exchange,
        key,
        True,
        False,
    )
    assert isinstance(head, header.ContentHeader)
    assert head.body_size == len(content)
    properties = head.properties
    assert (properties.content_type, properties.delivery_mode) == ("application/json", 2)
    assert (properties.message_id, dict(properties.headers or {})) == (message_id, table)
    assert (properties.message_type or "") == kind
    assert {on, also_on, *(number for number, _ in parts)} == {channel}
    assert all(isinstance(part, body.ContentBody) and len(part.value) <= largest for _, part in parts)
    assert b"".join(part.value for _, part in parts) == content


@given(names, headers, names)
def test_what_is_written_is_read_again(message_id: str, table: dict[str, Any], kind: str) -> None:
    written = publication(1, "e", "k", message_id, table, b"", 100_000, kind)
    start = 7 + pamqp.frame.unmarshal(written)[0]
    found, raw, read_id, named, read_kind = read_properties(written, start + 4, len(written) - 1)
    assert (found, read_id, named, read_kind) == (0, message_id, {"content-type": "application/json"}, kind)
    assert (pamqp.decode.field_table(raw)[1] if raw else {}) == table


@given(st.integers(1, 65535), st.lists(st.tuples(st.integers(1, 2**63 - 1), st.booleans()), max_size=5))
def test_acknowledgements_are_read_as_meant(channel: int, tags: list[tuple[int, bool]]) -> None:
    read = unmarshalled(acknowledgements(channel, tags))
    assert all(on == channel and isinstance(frame, commands.Basic.Ack) for on, frame in read)
    assert [(frame.delivery_tag, frame.multiple) for _, frame in read] == tags


@given(names, headers, st.integers(0, 2**40))
def test_properties_are_read_as_the_library_writes_them(message_id: str, table: Any, size: int) -> None:
    head = header.ContentHeader(
        body_size=size, properties=commands.Basic.Properties(message_id=message_id, headers=table, priority=3)
    )
    data = pamqp.frame.marshal(head, 1)
    found, raw, read_id, named, _ = read_properties(data, 7 + 4, len(data) - 1)
    assert named == {}
    assert (found, read_id) == (size, message_id)
    assert pamqp.decode.field_table(raw)[1] == table if table else raw == b""


@pytest.mark.parametrize("field", ["exchange", "routing_key", "message_id"])
def test_a_name_that_is_too_long_is_refused_before_anything_is_written(field: str) -> None:
    given_names = {"exchange": "e", "routing_key": "k", "message_id": "m", field: "ü" * 128}
    with pytest.raises(Unpublishable, match="255"):
        publication(channel=1, headers={}, body=b"", largest=1000, **given_names)


@pytest.mark.parametrize(
    "table", [{"a": 2**64}, {"a\ud800": 1}, {"a": "\ud800"}, {"a": object()}, {"CC": "x"}]
)
def test_headers_that_no_table_holds_are_refused_as_such(table: Any) -> None:
    with pytest.raises(Unpublishable):
        publication(1, "e", "k", "m", table, b"", 4000)
