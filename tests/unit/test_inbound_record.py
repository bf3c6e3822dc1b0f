"""A message on its way: the record that anybody could forge, and what it writes to the session."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from inbound_requests import (
    ID,
    PLACES,
    paths,
    read,
    read_legacy,
    texts,
    values,
)
from pydantic import ValidationError
from pydantic_core import to_json

from broker.models.acceptance import accept
from broker.models.inbound import MessageRequest
from broker.models.json_values import DEEPEST, json_object
from broker.models.records import UserMessage
from broker.models.session import apply_session_data, session_after


class TestRecord:
    """The record on its way, which anybody with the broker's password can forge."""

    FORGERIES: tuple[dict[str, object], ...] = (
        {"schemaVersion": 2},
        {"schemaVersion": None},
        {"id": ""},
        {"id": "x" * 37},
        {"id": "a\x00"},
        {"channelId": "a.b"},
        {"user": {"id": "x" * 257}},
        {"receivedAt": "2026-01-01T00:00:00"},
        {"receivedAt": "9999-12-31T23:59:59-12:00"},
        {"receivedAt": 1e300},
        {"source": "elsewhere"},
        {"traceparent": "x" * 513},
        {"extra": []},
        {"sessionData": {"a..b": 1}},
        {"message": {}},
        {"message": {"introMessage": {"a": float("nan")}}},
        {"user": {"id": "u", "a": 2**64}},
    )

    @pytest.mark.parametrize("forged", FORGERIES)
    def test_a_forged_one_is_refused(self, forged: dict[str, Any]) -> None:
        genuine = json.loads(read().model_dump_json())
        assert UserMessage.model_validate_json(json.dumps(genuine))
        with pytest.raises(ValidationError):
            UserMessage.model_validate_json(json.dumps(genuine | forged))

    @pytest.mark.parametrize("place", PLACES)
    def test_the_deepest_that_is_accepted_goes_through_the_queue(self, place: str) -> None:
        for levels in range(1, DEEPEST + 1):
            raw = PLACES[place] % (b"[" * levels + b"]" * levels)
            try:
                request = MessageRequest.model_validate_json(raw)
            except ValidationError:
                break
            message = accept(request, channel_id="c1", message_id=ID)
            assert UserMessage.model_validate_json(message.model_dump_json()) == message
        assert levels > DEEPEST - 8

    def test_the_deepest_click_of_the_older_form_goes_through_the_queue(self) -> None:
        inner = DEEPEST - 1
        message = read_legacy('{"type": "button", "a": ' + "[" * inner + "]" * inner + "}")
        assert message.message is not None
        assert message.message.postback_message is not None
        assert UserMessage.model_validate_json(message.model_dump_json()) == message


class TestSession:
    """What a message writes to the session before the bot sees it."""

    def test_dots_make_paths(self) -> None:
        session: dict[str, Any] = {"address": {"street": "Kaai 1"}, "age": 7}
        apply_session_data(session, {"address.city": "Gent", "age.exact": 7.5, "a.b.c": [1]})
        assert session == {
            "address": {"street": "Kaai 1", "city": "Gent"},
            "age": {"exact": 7.5},
            "a": {"b": {"c": [1]}},
        }

    def test_a_click_is_applied_after_session_data_and_in_its_order(self) -> None:
        sets = [{"key": "a.b", "value": 1}, {"key": "a", "value": 2}, {"key": "a.c", "value": 3}]
        message = read(
            message={"postbackMessage": {"sessionDataToSet": sets}}, sessionData={"a.b": 0, "kept": True}
        )
        assert session_after(message, b'{"old":1}') == {"old": 1, "a": {"c": 3}, "kept": True}

    @given(st.dictionaries(texts, values, max_size=4), st.dictionaries(paths, values, max_size=4))
    def test_the_bot_gets_a_copy_of_its_own(self, session: dict[str, Any], data: dict[str, Any]) -> None:
        before = json.dumps(data)
        message = UserMessage.read({**read().model_dump(mode="json"), "sessionData": data})
        written = to_json(session)
        first = session_after(message, written)
        said = json.dumps(first)
        spoil(first)
        assert json.dumps(message.session_data) == before
        assert json.dumps(session_after(message, written)) == said

    @given(st.dictionaries(texts, values, max_size=4), paths, values)
    def test_what_is_written_can_be_found(self, session: dict[str, Any], path: str, value: Any) -> None:
        apply_session_data(session, {path: value})
        found: Any = session
        for part in path.split("."):
            found = found[part]
        assert found == value


def spoil(value: Any) -> None:
    """Change every list and object within."""
    inner = list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else []
    for each in list(inner):
        spoil(each)
    if isinstance(value, dict):
        value["spoilt"] = True
    elif isinstance(value, list):
        value.append("spoilt")


@given(st.dictionaries(texts, values, max_size=4))
def test_a_json_object_is_its_own_copy(value: dict[str, Any]) -> None:
    assert json_object(value) == value
