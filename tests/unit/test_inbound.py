"""What comes in: accepted in three forms, carried through unchanged, refused where it would harm later."""

import json
from datetime import UTC, datetime
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st
from inbound_requests import (
    HELLO,
    ID,
    PLACES,
    body,
    identifiers,
    paths,
    read,
    texts,
    unknown,
    values,
)
from pydantic import ValidationError

from broker.models import acceptance, inbound_record
from broker.models.acceptance import accept, accept_queued
from broker.models.inbound import LegacyMessageRequest, MessageRequest, QueuedMessageRequest
from broker.models.inbound_record import write_record
from broker.models.json_values import DEEPEST, LARGEST_INTEGER
from broker.models.records import BotResponse, UserMessage
from broker.models.session import session_after


@st.composite
def messages(draw: st.DrawFn) -> dict[str, Any]:
    """Draw one of the four kinds of message, with fields that nobody knows."""
    kind = draw(st.sampled_from(["introMessage", "textMessage", "locationMessage", "postbackMessage"]))
    part: dict[str, Any] = draw(unknown)
    if kind == "textMessage":
        part |= {"text": draw(texts)}
    elif kind == "locationMessage":
        part |= {"coordinates": {"lat": draw(st.floats(-90, 90)), "long": draw(st.integers(-180, 180))}}
    elif kind == "postbackMessage":
        variables = st.fixed_dictionaries({"key": paths}, optional={"value": values})
        part |= draw(
            st.fixed_dictionaries(
                {},
                optional={
                    "title": st.none() | texts,
                    "payload": st.none() | texts,
                    "nextDialogstateId": st.none() | texts,
                    "sessionDataToSet": st.none() | st.lists(variables, max_size=3),
                },
            )
        )
    return {**draw(unknown), kind: part}


@st.composite
def requests(draw: st.DrawFn) -> dict[str, Any]:
    """Draw a request in the current form."""
    request: dict[str, Any] = draw(unknown)
    request["message"] = draw(messages())
    user = draw(unknown) | draw(
        st.fixed_dictionaries(
            {}, optional={"firstName": st.none() | texts, "lastName": texts, "preferredLanguage": texts}
        )
    )
    named = draw(st.sampled_from(["user", "conversation", "both"]))
    if named != "conversation":
        request["user"] = {**user, "id": draw(identifiers | st.integers(0, LARGEST_INTEGER))}
    elif draw(st.booleans()):
        request["user"] = user
    if named != "user":
        request["conversationId"] = draw(identifiers)
    if draw(st.booleans()):
        request["sessionData"] = draw(st.none() | st.dictionaries(paths, values, max_size=3))
    if request.get("sessionData") and draw(st.booleans()):
        # No more than that is asked for.
        del request["message"]
    return request


@given(requests(), st.datetimes(datetime(2020, 1, 1), datetime(2100, 1, 1)) | st.just(datetime(2026, 1, 1)))
def test_the_record_written_at_the_door_is_the_models_own_to_the_byte(
    request: dict[str, Any], moment: datetime
) -> None:
    read_request = MessageRequest.model_validate_json(json.dumps(request))
    named: dict[str, str] = {
        "channel_id": "c-1_X",
        "message_id": ID,
        "traceparent": f"00-{'a' * 32}-{'b' * 16}-01",
    }
    moment = moment.replace(tzinfo=UTC)
    with patch.object(acceptance, "now", lambda: moment), patch.object(inbound_record, "now", lambda: moment):
        accepted = accept(read_request, **named)  # type: ignore[arg-type]
        user_id, written = write_record(read_request, **named)
    assert written == accepted.model_dump_json().encode()
    assert user_id == accepted.user.id
    assert UserMessage.model_validate_json(written) == accepted


def contains(whole: Any, part: Any) -> bool:
    """Tell whether all that is in `part` is in `whole` too; null may be missing."""
    if isinstance(part, dict):
        return isinstance(whole, dict) and all(
            value is None or (key in whole and contains(whole[key], value)) for key, value in part.items()
        )
    if isinstance(part, list):
        return isinstance(whole, list) and len(whole) == len(part) and all(map(contains, whole, part))
    return bool(whole == part)


@given(requests())
def test_what_is_accepted_goes_through_the_queue_unchanged(request: dict[str, Any]) -> None:
    message = accept(MessageRequest.model_validate_json(json.dumps(request)), channel_id="c1", message_id=ID)
    assert UserMessage.model_validate_json(message.model_dump_json()) == message


@given(messages())
def test_every_field_of_a_message_reaches_the_bot(message: dict[str, Any]) -> None:
    written = json.loads(read(message=message).model_dump_json())["message"]
    assert contains(written, message)


def test_unknown_fields_reach_the_bot_wherever_they_stand() -> None:
    message = read(
        message={"textMessage": {"text": "hi", "markdown": True}, "tag": None},
        user={"id": "u1", "tier": "gold"},
        trace=[1, {"a": None}],
        id="mine",
        source="nowhere",
    )
    again = UserMessage.model_validate_json(message.model_dump_json())
    assert again.message is not None
    assert again.message.model_dump() == {"textMessage": {"text": "hi", "markdown": True}, "tag": None}
    assert again.user.model_dump() == {"id": "u1", "tier": "gold"}
    assert again.extra == {"trace": [1, {"a": None}], "id": "mine", "source": "nowhere"}
    assert (again.id, again.source) == (ID, "http")


@pytest.mark.parametrize("absent", [{}, {"message": None}], ids=["absent", "null"])
def test_a_message_may_do_no_more_than_write_to_the_session(absent: dict[str, Any]) -> None:
    request = {"user": {"id": "u"}, "sessionData": {"address.city": "Gent"}, **absent}
    given = MessageRequest.model_validate_json(json.dumps(request))
    message = accept(given, channel_id="c1", message_id=ID)
    assert message.message is None
    assert session_after(message, b'{"old":1}') == {"old": 1, "address": {"city": "Gent"}}
    queued = QueuedMessageRequest.model_validate_json(json.dumps({**request, "channelId": "c1"}))
    for each in (message, accept_queued(queued, message_id=ID)):
        assert UserMessage.model_validate_json(each.model_dump_json()) == each
        assert "message" not in json.loads(each.model_dump_json())


def test_the_users_id_wins_over_the_conversation_id() -> None:
    assert read(conversationId="conv").user.id == "u1"
    assert read(user=None, conversationId="conv").user.id == "conv"
    named = read(user={"firstName": "Ada"}, conversationId="conv").user
    assert (named.id, named.first_name) == ("conv", "Ada")


def test_a_whole_number_is_an_id() -> None:
    assert read(user={"id": 4711}).user.id == "4711"
    assert read(user=None, conversationId=0).user.id == "0"


def test_ids_are_not_stripped() -> None:
    assert read(user={"id": " "}).user.id == " "
    assert read(user={"id": "x" * 256}).user.id == "x" * 256


@pytest.mark.parametrize(
    "fields",
    [
        {"user": None},
        {"user": {}},
        {"user": {"firstName": "Ada"}},
        {"user": "u1"},
        {"user": {"id": ""}},
        {"user": {"id": "x" * 257}},
        {"user": {"id": "a\x00b"}},
        {"user": {"id": 1.5}},
        {"user": {"id": True}},
        {"user": {"id": ["u1"]}},
        {"user": {"id": "u1", "firstName": 5}},
        {"user": {"id": "u1"}, "conversationId": ""},
        {"message": None},
        {"message": None, "sessionData": {}},
        {"message": None, "sessionData": {"a..b": 1}},
        {"message": {}, "sessionData": {"a": 1}},
        {"message": []},
        {"message": {}},
        {"message": {"textMessage": None}},
        {"message": {"textMessage": "hello"}},
        {"message": {"textMessage": {}}},
        {"message": {"textMessage": {"text": 5}}},
        {"message": {"textMessage": {"text": None}}},
        {"message": {**HELLO, "introMessage": {}}},
        {"message": {"introMessage": []}},
        {"message": {"locationMessage": {"coordinates": {"lat": 91, "long": 0}}}},
        {"message": {"locationMessage": {"coordinates": {"lat": 0, "long": -180.5}}}},
        {"message": {"locationMessage": {"coordinates": {"lat": "51", "long": 3}}}},
        {"message": {"locationMessage": {"coordinates": {"lat": True, "long": 3}}}},
        {"message": {"locationMessage": {"coordinates": {"lat": 51}}}},
        {"message": {"postbackMessage": {"payload": {"a": 1}}}},
        {"message": {"postbackMessage": {"sessionDataToSet": [{"value": 1}]}}},
        {"message": {"postbackMessage": {"sessionDataToSet": [{"key": "a..b"}]}}},
        {"message": {"postbackMessage": {"sessionDataToSet": {"a": 1}}}},
        {"sessionData": []},
        {"sessionData": {"": 1}},
        {"sessionData": {".a": 1}},
        {"sessionData": {"a.": 1}},
        {"sessionData": {".".join("abcdefghijklmnopq"): 1}},
        {"sessionData": {"x" * 257: 1}},
    ],
)
def test_what_is_not_in_the_contract_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        MessageRequest.model_validate_json(body(**fields))


RUBBISH = {
    "NaN": b"NaN",
    "Infinity": b"-Infinity",
    "an infinite number": b"1e999",
    "an integer of 65 bits": str(LARGEST_INTEGER + 1).encode(),
    "an integer of 5,000 digits": b"9" * 5000,
    "a negative integer of 65 bits": str(-LARGEST_INTEGER - 2).encode(),
    "a lone surrogate": b'"\\ud800"',
    "a lone surrogate as a key": b'{"\\udfff": 1}',
    "bytes that are not UTF-8": b'"\xff"',
    "deep arrays": b"[" * (DEEPEST + 1) + b"]" * (DEEPEST + 1),
    "arrays too deep for any parser": b"[" * 100_000 + b"]" * 100_000,
    "deep objects": b'{"a":' * (DEEPEST + 1) + b"1" + b"}" * (DEEPEST + 1),
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("rubbish", RUBBISH)
def test_what_some_reader_of_json_would_fail_on_is_refused(place: str, rubbish: str) -> None:
    assert MessageRequest.model_validate_json(PLACES[place] % b"[1, null, 1.5e3]")
    with pytest.raises(ValidationError):
        MessageRequest.model_validate_json(PLACES[place] % RUBBISH[rubbish])


@pytest.mark.parametrize("rubbish", [b"", b"null", b"[]", b'"x"', b"{", b"\xef\xbb\xbf{}", b"\x00", b"{}"])
@pytest.mark.parametrize("form", [MessageRequest, QueuedMessageRequest, LegacyMessageRequest, UserMessage])
def test_what_is_no_request_is_refused(form: type[MessageRequest], rubbish: bytes) -> None:
    with pytest.raises(ValidationError):
        form.model_validate_json(rubbish)


@given(st.binary(max_size=60) | st.builds(lambda value: json.dumps(value).encode(), values))
def test_whatever_comes_is_accepted_or_refused(rubbish: bytes) -> None:
    for form in (MessageRequest, QueuedMessageRequest, LegacyMessageRequest, UserMessage, BotResponse):
        with pytest.raises(ValidationError):
            form.model_validate_json(rubbish)


def test_a_refusal_names_the_place() -> None:
    with pytest.raises(ValidationError, match=r"NaN and Infinity are not JSON, at sessionData\.prices\.1"):
        MessageRequest.model_validate_json(
            b'{"message":{"introMessage":{}},"user":{"id":"u"},"sessionData":{"prices":[1,NaN]}}'
        )


class TestQueuedForm:
    """The form on the queue."""

    def test_names_its_channel_and_perhaps_itself(self) -> None:
        request = QueuedMessageRequest.model_validate_json(body(channelId="c-1_A", id=7))
        message = accept_queued(request, message_id=ID)
        assert (message.channel_id, message.source, request.id) == ("c-1_A", "amqp", "7")
        assert message.extra == {}

    @pytest.mark.parametrize("channel", [None, "", "a/b", "a.b", "a b", "ä", "a\n", "a" * 65, 5, "#", "*"])
    def test_refuses_a_channel_that_is_no_word_of_a_routing_key(self, channel: Any) -> None:
        with pytest.raises(ValidationError):
            QueuedMessageRequest.model_validate_json(body(channelId=channel))

    def test_refuses_to_go_without_a_channel(self) -> None:
        with pytest.raises(ValidationError):
            QueuedMessageRequest.model_validate_json(body())
