"""The older form of a user's message."""

import json
from typing import Any

import pytest
from inbound_requests import (
    read_legacy,
)
from pydantic import ValidationError

from broker.models.inbound import LegacyMessageRequest
from broker.models.records import UserMessage
from broker.models.session import session_after


class TestLegacyForm:
    """The older form."""

    def test_carries_text_and_language(self) -> None:
        message = read_legacy("hello", locale="nl", sender={"id": 5, "shop": "x"}, flow=1)
        assert message.message is not None
        assert message.message.text_message is not None
        assert message.message.text_message.text == "hello"
        assert (message.user.id, message.user.preferred_language) == ("5", "nl")
        assert message.user.model_extra == {"shop": "x"}
        assert (message.extra, message.source) == ({"flow": 1}, "legacy")

    def test_keeps_the_verify_token_at_the_door(self) -> None:
        assert "secret" not in read_legacy("hello").model_dump_json()

    @pytest.mark.parametrize("kind", ["button", "quickreply"])
    def test_reads_a_click(self, kind: str) -> None:
        click = {
            "type": kind,
            "caption": "Yes",
            "nextDialogstateId": "d1",
            "params": [{"key": "address.city", "value": "Gent"}, {"key": "n", "value": None}],
        }
        message = read_legacy(json.dumps(click))
        assert message.message is not None
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
        assert session_after(message, b"{}") == {"address": {"city": "Gent"}, "n": None}
        assert UserMessage.model_validate_json(message.model_dump_json()) == message

    def test_reads_a_click_as_buttons_in_the_field_have_it(self) -> None:
        variable = {"order": 0, "key": "location", "value": "Gent", "__typename": "Parameter"}
        click = {
            "title": "Go",
            "caption": "Go",
            "type": "button",
            "originalTitle": "Go",
            "nextDialogstateId": 3050,
            "parameters": [variable, {"key": "both", "value": "parameters"}],
            "params": [{"key": "both", "value": "params"}],
        }
        message = read_legacy(json.dumps(click))
        assert message.message is not None
        assert message.message.postback_message is not None
        assert message.message.postback_message.next_dialogstate_id == "3050"
        assert session_after(message, b"{}") == {"location": "Gent", "both": "params"}
        assert UserMessage.model_validate_json(message.model_dump_json()) == message
        message = read_legacy(json.dumps({**click, "params": None}))
        assert session_after(message, b"{}") == {"location": "Gent", "both": "parameters"}

    def test_reads_a_click_that_sets_nothing(self) -> None:
        message = read_legacy(
            '{"type": "button", "caption": "Yes", "params": null, "nextDialogstateId": null}'
        )
        assert message.message is not None
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
        message = read_legacy(text)
        assert message.message is not None
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
