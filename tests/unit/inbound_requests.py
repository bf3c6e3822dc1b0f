"""Requests that users' messages come in by, and what is drawn to fill them."""

import json
from typing import Any

from hypothesis import strategies as st

from broker.models.acceptance import accept, accept_legacy
from broker.models.inbound import LegacyMessageRequest, MessageRequest
from broker.models.json_values import LARGEST_INTEGER
from broker.models.records import UserMessage

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


PLACES = {
    "in sessionData": b'{"message":{"textMessage":{"text":"x"}},"user":{"id":"u"},"sessionData":{"a":%s}}',
    "in an unknown field": b'{"message":{"textMessage":{"text":"x"}},"user":{"id":"u"},"a":%s}',
    "in an unknown field of the message": b'{"message":{"introMessage":{"a":[%s]}},"user":{"id":"u"}}',
    "in an unknown field of the user": b'{"message":{"introMessage":{}},"user":{"id":"u","a":%s}}',
    "in what a click sets": (
        b'{"message":{"postbackMessage":{"sessionDataToSet":[{"key":"a","value":%s}]}},"user":{"id":"u"}}'
    ),
}


def read_legacy(text: str, **fields: Any) -> UserMessage:
    """Take in a request in the older form."""
    request = {"text": text, "sender": {"id": "u1"}, "verifyToken": "secret", **fields}
    return accept_legacy(
        LegacyMessageRequest.model_validate_json(json.dumps(request)), channel_id="c1", message_id=ID
    )
