"""What comes in: accepted in three forms, carried through unchanged, refused where it would harm later."""

import json
from datetime import UTC, datetime
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from broker.models import acceptance, inbound_record
from broker.models.acceptance import accept, accept_legacy, accept_queued
from broker.models.inbound import LegacyMessageRequest, MessageRequest, QueuedMessageRequest
from broker.models.inbound_record import write_record
from broker.models.json_values import DEEPEST, LARGEST_INTEGER, json_object
from broker.models.records import BotResponse, UserMessage
from broker.models.session import apply_session_data, session_after

HELLO = {"textMessage": {"text": "hello"}}
ID = "5f0c0a3e-0000-4000-8000-000000000001"

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-LARGEST_INTEGER, LARGEST_INTEGER)
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)
# Names of our own attributes and of declared fields in another spelling, too: nothing may trip over them.
unknown_names = texts | st.sampled_from(
    ["first_name", "text_message", "model_dump", "model_extra", "__dict__", "copy", "schemaVersion", "source"]
)
unknown = st.dictionaries(unknown_names, values, max_size=3)
identifiers = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), min_size=1, max_size=256
)
paths = st.lists(
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="."), min_size=1, max_size=5),
    min_size=1,
    max_size=4,
).map(".".join)


def body(**fields: Any) -> bytes:
    """Write a request in the current form, from a user who said hello."""
    return json.dumps({"message": HELLO, "user": {"id": "u1"}, **fields}).encode()


def read(**fields: Any) -> UserMessage:
    """Take in such a request."""
    return accept(MessageRequest.model_validate_json(body(**fields)), channel_id="c1", message_id=ID)


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
    assert again.message.model_dump() == {"textMessage": {"text": "hi", "markdown": True}, "tag": None}
    assert again.user.model_dump() == {"id": "u1", "tier": "gold"}
    assert again.extra == {"trace": [1, {"a": None}], "id": "mine", "source": "nowhere"}
    assert (again.id, again.source) == (ID, "http")


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
PLACES = {
    "in sessionData": b'{"message":{"textMessage":{"text":"x"}},"user":{"id":"u"},"sessionData":{"a":%s}}',
    "in an unknown field": b'{"message":{"textMessage":{"text":"x"}},"user":{"id":"u"},"a":%s}',
    "in an unknown field of the message": b'{"message":{"introMessage":{"a":[%s]}},"user":{"id":"u"}}',
    "in an unknown field of the user": b'{"message":{"introMessage":{}},"user":{"id":"u","a":%s}}',
    "in what a click sets": (
        b'{"message":{"postbackMessage":{"sessionDataToSet":[{"key":"a","value":%s}]}},"user":{"id":"u"}}'
    ),
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


class TestLegacyForm:
    """The older form."""

    @staticmethod
    def read(text: str, **fields: Any) -> UserMessage:
        """Take in a request in the older form."""
        request = {"text": text, "sender": {"id": "u1"}, "verifyToken": "secret", **fields}
        return accept_legacy(
            LegacyMessageRequest.model_validate_json(json.dumps(request)), channel_id="c1", message_id=ID
        )

    def test_carries_text_and_language(self) -> None:
        message = self.read("hello", locale="nl", sender={"id": 5, "shop": "x"}, flow=1)
        assert message.message.text_message is not None
        assert message.message.text_message.text == "hello"
        assert (message.user.id, message.user.preferred_language) == ("5", "nl")
        assert message.user.model_extra == {"shop": "x"}
        assert (message.extra, message.source) == ({"flow": 1}, "legacy")

    def test_keeps_the_verify_token_at_the_door(self) -> None:
        assert "secret" not in self.read("hello").model_dump_json()

    @pytest.mark.parametrize("kind", ["button", "quickreply"])
    def test_reads_a_click(self, kind: str) -> None:
        click = {
            "type": kind,
            "caption": "Yes",
            "nextDialogstateId": "d1",
            "params": [{"key": "address.city", "value": "Gent"}, {"key": "n", "value": None}],
        }
        message = self.read(json.dumps(click))
        assert message.message.model_dump() == {
            "postbackMessage": {
                "title": "Yes",
                "nextDialogstateId": "d1",
                "sessionDataToSet": (
                    {"key": "address.city", "value": "Gent"},
                    {"key": "n", "value": None},
                ),
            }
        }
        assert session_after(message, {}) == {"address": {"city": "Gent"}, "n": None}
        assert UserMessage.model_validate_json(message.model_dump_json()) == message

    def test_reads_a_click_that_sets_nothing(self) -> None:
        message = self.read('{"type": "button", "caption": "Yes", "params": null, "nextDialogstateId": null}')
        assert message.message.postback_message is not None
        assert message.message.postback_message.session_data_to_set == ()

    @pytest.mark.parametrize(
        "text",
        [
            "",
            "{",
            "{}",
            "5",
            "[]",
            '"x"',
            '{"a": 1}',
            '{"type": "other", "caption": "x"}',
            '{"type": "button", "caption": 5}',
            '{"type": "button", "params": [{"key": ""}]}',
            '{"type": "button", "params": [{"key": "a", "value": NaN}]}',
            '{"type": "button", "a": ' + "[" * 5000 + "]" * 5000 + "}",
            '{"type": "button", "a": ' + "9" * 5000 + "}",
            '{"type": "button", "a": "\\ud800"}',
        ],
    )
    def test_takes_any_other_text_as_text(self, text: str) -> None:
        message = self.read(text)
        assert message.message.text_message is not None
        assert message.message.text_message.text == text

    @pytest.mark.parametrize(
        "fields",
        [{"text": 5}, {"text": None}, {"sender": {}}, {"sender": "u"}, {"verifyToken": None}, {"locale": 5}],
    )
    def test_refuses_wrong_types(self, fields: dict[str, Any]) -> None:
        request = {"text": "x", "sender": {"id": "u1"}, "verifyToken": "secret", **fields}
        with pytest.raises(ValidationError):
            LegacyMessageRequest.model_validate_json(json.dumps(request))


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
        message = TestLegacyForm.read('{"type": "button", "a": ' + "[" * inner + "]" * inner + "}")
        assert message.message.postback_message is not None
        assert UserMessage.model_validate_json(message.model_dump_json()) == message


class TestSession:
    """What a message writes to the session before the bot sees it."""

    def test_dots_make_paths(self) -> None:
        session = {"address": {"street": "Kaai 1"}, "age": 7}
        after = apply_session_data(session, {"address.city": "Gent", "age.exact": 7.5, "a.b.c": [1]})
        assert after == {
            "address": {"street": "Kaai 1", "city": "Gent"},
            "age": {"exact": 7.5},
            "a": {"b": {"c": [1]}},
        }
        assert session == {"address": {"street": "Kaai 1"}, "age": 7}

    def test_a_click_is_applied_after_session_data_and_in_its_order(self) -> None:
        sets = [{"key": "a.b", "value": 1}, {"key": "a", "value": 2}, {"key": "a.c", "value": 3}]
        message = read(
            message={"postbackMessage": {"sessionDataToSet": sets}}, sessionData={"a.b": 0, "kept": True}
        )
        assert session_after(message, {"old": 1}) == {"old": 1, "a": {"c": 3}, "kept": True}

    @given(st.dictionaries(texts, values, max_size=4), st.dictionaries(paths, values, max_size=4))
    def test_the_bot_gets_a_copy_of_its_own(self, session: dict[str, Any], data: dict[str, Any]) -> None:
        before = json.dumps([session, data])
        spoil(apply_session_data(session, data))
        assert json.dumps([session, data]) == before

    @given(st.dictionaries(texts, values, max_size=4), paths, values)
    def test_what_is_written_can_be_found(self, session: dict[str, Any], path: str, value: Any) -> None:
        found: Any = apply_session_data(session, {path: value})
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
