"""What a webhook receives: the bytes of the wire contract, the same on every attempt."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from inbound_requests import ID, texts, values
from pydantic import ValidationError

from broker.models.json_values import DEEPEST_SAID, LARGEST_INTEGER
from broker.models.outbound import webhook_body
from broker.models.records import BotResponse

objects = st.dictionaries(texts, values, max_size=4)


def response(message: Any, **fields: Any) -> BotResponse:
    """Make the first response to a user, or another."""
    given_: dict[str, Any] = {
        "id": ID,
        "channel_id": "demo",
        "user_id": "cust-7f3a",
        "in_reply_to": ID,
        "index": 1,
        "count": 1,
        "message_counter": 1,
        "kind": "text",
        "message": message,
    }
    return BotResponse(**given_ | fields)


def test_the_body_is_the_one_of_the_contract() -> None:
    said = response({"text": "Your parcel arrives on Friday."})
    assert webhook_body(said, "s3cr3t-demo") == (
        b'{"recipient":{"id":"cust-7f3a"},"senderId":"cust-7f3a","messageCounter":1,'
        b'"verifyToken":"s3cr3t-demo","message":{"text":"Your parcel arrives on Friday."}}'
    )


def test_text_goes_out_as_utf_8() -> None:
    assert '"text":"Grüße 😀\\u0000"'.encode() in webhook_body(response({"text": "Grüße 😀\x00"}), "")


@given(objects, texts, st.integers(1, LARGEST_INTEGER))
def test_the_same_response_has_the_same_bytes_wherever_it_was(
    message: dict[str, Any], token: str, counter: int
) -> None:
    """Straight from the bot, off the queue, and out of the database."""
    said = response(message, message_counter=counter)
    queued = BotResponse.model_validate_json(said.model_dump_json())
    kept = BotResponse.model_validate(json.loads(json.dumps(said.model_dump(mode="json"))))
    assert queued == said
    assert kept == said
    body = webhook_body(said, token)
    assert webhook_body(queued, token) == webhook_body(kept, token) == body
    assert json.loads(body) == {
        "recipient": {"id": "cust-7f3a"},
        "senderId": "cust-7f3a",
        "messageCounter": counter,
        "verifyToken": token,
        "message": message,
    }


def test_unknown_fields_and_nulls_and_their_order_are_the_bots() -> None:
    message = {"zeta": None, "text": "x", "alpha": [{"b": None, "a": 1}], "model_dump": 1, "first_name": "y"}
    queued = BotResponse.model_validate_json(response(message).model_dump_json(exclude_none=True))
    assert json.dumps(queued.message) == json.dumps(message)


def test_a_program_s_values_become_json() -> None:
    said = response({"a": (1, 2), 5: {"b": {"c"}}})
    assert said.message == {"a": [1, 2], "5": {"b": ["c"]}}


def test_the_record_is_a_copy_that_the_bot_cannot_change_later() -> None:
    message = {"text": "before", "inner": {"a": 1}}
    said = response(message)
    message["inner"]["a"] = 2  # type: ignore[index]
    assert said.message["inner"] == {"a": 1}


def nested(levels: int) -> dict[str, Any]:
    """Make an object with as many levels."""
    value: dict[str, Any] = {}
    for _ in range(levels - 1):
        value = {"a": value}
    return value


def test_deep_messages_go_through_the_queue_up_to_the_limit() -> None:
    said = response(nested(DEEPEST_SAID))
    assert BotResponse.model_validate_json(said.model_dump_json()) == said
    with pytest.raises(ValidationError):
        response(nested(DEEPEST_SAID + 1))


@pytest.mark.parametrize(
    "message",
    [
        None,
        "hello",
        ["hello"],
        {"a": float("nan")},
        {"a": {"b": [float("inf")]}},
        {"a": "\ud800"},
        {"\ud800": 1},
        {"a": 2**63},
        {"a": 10**5000},
        {"a": object()},
        {"a": b"\xff"},
        nested(10_000),
    ],
)
def test_what_is_no_json_object_is_no_message(message: Any) -> None:
    with pytest.raises(ValidationError):
        response(message)


def test_a_message_that_holds_itself_is_no_message() -> None:
    message: dict[str, Any] = {}
    message["self"] = message
    with pytest.raises(ValidationError):
        response(message)


@pytest.mark.parametrize(
    "forged",
    [
        b'"schemaVersion":2',
        b'"id":"' + b"x" * 37 + b'"',
        b'"channelId":"a.b"',
        b'"userId":""',
        b'"userId":"a\\u0000"',
        b'"kind":"a.b"',
        b'"index":0',
        b'"messageCounter":0',
        b'"messageCounter":9223372036854775808',
        b'"createdAt":"2026-01-01T00:00:00"',
        b'"createdAt":"0001-01-01T00:00:00+14:00"',
        b'"message":null',
        b'"message":[]',
        b'"message":{"a":NaN}',
        b'"message":{"a":1e999}',
    ],
)
def test_a_forged_record_is_refused(forged: bytes) -> None:
    genuine = response({"text": "x"}).model_dump_json().encode()
    assert BotResponse.model_validate_json(genuine)
    # The last of two fields with one name is the one that counts.
    with pytest.raises(ValidationError):
        BotResponse.model_validate_json(genuine[:-1] + b"," + forged + b"}")
