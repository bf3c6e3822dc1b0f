"""Message objects: every shape of the wire contract is known, every other one passes, limits are told."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from broker.models import builders as say
from broker.models.message_objects import Attached, kind_of, parse, warnings_of

POSTBACK = {"type": "postback", "title": "Yes", "payload": "yes:1"}
PAGE = {"type": "web_url", "title": "Page", "url": "https://example.com"}
PHONE = {"type": "phone_number", "title": "Call", "payload": "+3225550123"}
SHARE = {"type": "element_share"}
CARD = {
    "title": "A",
    "subtitle": "b",
    "image_url": "https://example.com/a.png",
    "item_url": "https://example.com/a",
    "default_action": {"type": "web_url", "url": "https://example.com/a"},
    "buttons": [POSTBACK, PAGE, SHARE],
}
ROW = {"title": "A", "subtitle": "b", "buttons": [POSTBACK]}
CHOICE = {"content_type": "text", "title": "Yes", "payload": "yes"}


def template(kind: str, **fields: Any) -> dict[str, Any]:
    """Write a template."""
    return {"attachment": {"type": "template", "payload": {"template_type": kind, **fields}}}


def attached(kind: str, **payload: Any) -> dict[str, Any]:
    """Write a file."""
    return {"attachment": {"type": kind, "payload": payload}}


KNOWN = [
    ("text", {"text": "hello"}),
    ("text", {"text": ""}),
    ("text", {"text": "hello", "quick_replies": [], "attachment": None}),
    ("quick_replies", {"text": "Well?", "quick_replies": [CHOICE, {"content_type": "location"}]}),
    ("quick_replies", {"text": "Well?", "quick_replies": [{**CHOICE, "image_url": "https://example.com/y"}]}),
    (
        "quick_replies",
        {
            "text": "?",
            "quick_replies": [{"content_type": "user_email"}, {"content_type": "user_phone_number"}],
        },
    ),
    ("buttons", template("button", text="Well?", buttons=[POSTBACK, PAGE, PHONE])),
    ("buttons", template("button", buttons=[POSTBACK])),
    ("generic", template("generic", elements=[CARD] * 10)),
    ("generic", template("generic", elements=[{"title": "A"}])),
    ("list", template("list", elements=[ROW, {"title": "B"}])),
    ("list", template("list", elements=[ROW] * 4, buttons=[PAGE])),
    ("media", attached("image", url="https://example.com/a.png")),
    ("media", attached("video", url="https://example.com/a.mp4", is_reusable=True)),
    ("media", attached("audio", url="https://example.com/a.mp3")),
    ("media", attached("file", url="https://example.com/a.pdf")),
    ("media", {**attached("image", url="https://example.com/a"), "quick_replies": [CHOICE], "text": "x"}),
    ("event", {"type": "event"}),
    ("event", {"type": "event", "name": "order.placed", "text": "not shown", "attachment": 5}),
]

# What is no shape of the contract, with the kind that it still goes by.
BROKEN = [
    ("other", {}),
    ("other", {"text": 5}),
    ("other", {"text": None}),
    ("other", {"type": "other"}),
    ("other", {"attachment": "x", "text": "y"}),
    ("other", {"attachment": {}, "text": "y"}),
    ("other", {"attachment": {"type": "template"}}),
    ("other", {"attachment": {"type": ["image"], "payload": {}}}),
    ("other", template("receipt", elements=[])),
    ("other", {"attachment": {"type": "template", "payload": {"template_type": {}}}}),
    ("quick_replies", {"text": "x", "quick_replies": "yes"}),
    ("quick_replies", {"text": "x", "quick_replies": [{"content_type": "text"}]}),
    ("quick_replies", {"text": "x", "quick_replies": [{"content_type": "other", "title": "x"}]}),
    ("buttons", template("button", text="x", buttons=[])),
    ("buttons", template("button", text="x", buttons=[POSTBACK] * 4)),
    ("buttons", template("button", text="x", buttons=[{"type": "postback", "title": "x"}])),
    ("buttons", template("button", text="x", buttons=[{"type": "web_url", "title": "x"}])),
    ("buttons", template("button", text="x", buttons=[{"type": "dance", "title": "x"}])),
    ("generic", template("generic", elements=[])),
    ("generic", template("generic", elements=[{"title": "A"}] * 11)),
    ("generic", template("generic", elements=[{**CARD, "buttons": [POSTBACK] * 4}])),
    ("generic", template("generic", elements=[{"subtitle": "no title"}])),
    ("generic", template("generic", elements=[{"title": "A", "default_action": {"type": "postback"}}])),
    ("list", template("list", elements=[ROW])),
    ("list", template("list", elements=[ROW] * 5)),
    ("list", template("list", elements=[ROW, {**ROW, "buttons": [POSTBACK] * 2}])),
    ("list", template("list", elements=[ROW, ROW], buttons=[PAGE, PAGE])),
    ("media", attached("image")),
    ("media", attached("file", url=5)),
]


@pytest.mark.parametrize(("kind", "message"), KNOWN)
def test_every_shape_of_the_contract_is_known(kind: str, message: dict[str, Any]) -> None:
    assert kind_of(message) == kind
    assert parse(message)
    assert warnings_of(message) == []


@pytest.mark.parametrize(("kind", "message"), BROKEN)
def test_what_is_no_shape_of_the_contract_passes_with_a_warning(kind: str, message: dict[str, Any]) -> None:
    assert kind_of(message) == kind
    assert warnings_of(message)
    with pytest.raises(ValidationError):
        parse(message)


@pytest.mark.parametrize(("kind", "message"), KNOWN)
def test_unknown_fields_are_kept(kind: str, message: dict[str, Any]) -> None:
    read = parse({**message, "own": {"a": [None]}})
    assert read.model_dump(exclude_unset=True) == {**message, "own": {"a": [None]}}


def test_unknown_fields_of_inner_parts_are_kept() -> None:
    card = {**CARD, "own": 1, "buttons": [{**POSTBACK, "own": 2}]}
    message = template("generic", elements=[card], own=3)
    assert parse(message).model_dump(exclude_unset=True) == message


def test_a_warning_says_where() -> None:
    (warning,) = warnings_of(template("button", text="x", buttons=[POSTBACK] * 4))
    assert "attachment" in warning
    assert "buttons" in warning
    assert "at most 3" in warning


@pytest.mark.parametrize(
    ("just_right", "too_much", "said"),
    [
        (
            template("button", text="x" * 640, buttons=[POSTBACK]),
            template("button", text="x" * 641, buttons=[POSTBACK]),
            "641",
        ),
        (
            template("button", text="x", buttons=[{**POSTBACK, "title": "ä" * 20}]),
            template("button", text="x", buttons=[{**POSTBACK, "title": "ä" * 21}]),
            "21",
        ),
        (
            template("generic", elements=[{"title": "x" * 80}]),
            template("generic", elements=[{"title": "x" * 81}]),
            "element 1 has 81",
        ),
        (
            template("generic", elements=[CARD, {"title": "x", "buttons": [{**PAGE, "title": "x" * 20}]}]),
            template("generic", elements=[CARD, {"title": "x", "buttons": [{**PAGE, "title": "x" * 21}]}]),
            "21",
        ),
        (
            template("list", elements=[ROW, ROW], buttons=[{**PAGE, "title": "x" * 20}]),
            template("list", elements=[ROW, ROW], buttons=[{**PAGE, "title": "x" * 21}]),
            "21",
        ),
        (
            {"text": "x", "quick_replies": [CHOICE] * 13},
            {"text": "x", "quick_replies": [CHOICE] * 14},
            "14 quick replies",
        ),
    ],
)
def test_limits_of_messenger_are_warnings(
    just_right: dict[str, Any], too_much: dict[str, Any], said: str
) -> None:
    assert warnings_of(just_right) == []
    (warning,) = warnings_of(too_much)
    assert said in warning
    assert parse(too_much)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
# Objects that begin as those of the contract do, and go on as they like.
almost = st.dictionaries(
    st.sampled_from(["text", "quick_replies", "attachment", "type"]),
    json_values
    | st.just("event")
    | st.dictionaries(
        st.sampled_from(["type", "payload"]),
        json_values
        | st.sampled_from(["template", "image"])
        | st.dictionaries(
            st.sampled_from(["template_type", "elements", "buttons", "url"]),
            json_values | st.sampled_from(["button", "generic", "list"]),
        ),
    ),
)


@given(almost | json_values)
def test_whatever_a_bot_says_has_a_kind(message: Any) -> None:
    kinds = {"text", "quick_replies", "buttons", "generic", "list", "media", "event", "other"}
    assert kind_of(message) in kinds


@given(almost)
def test_whatever_a_bot_says_is_known_or_warned_of(message: dict[str, Any]) -> None:
    try:
        parse(message)
    except ValidationError:
        assert warnings_of(message)
    else:
        assert kind_of(message) != "other"


class TestBuilders:
    """What the builders for bots make."""

    @pytest.mark.parametrize(
        ("built", "expected"),
        [
            (say.text("x"), {"text": "x"}),
            (
                say.quick_replies("x", [("Yes", "yes"), say.location_request()]),
                {"text": "x", "quick_replies": [CHOICE, {"content_type": "location"}]},
            ),
            (say.buttons("x", [POSTBACK, PAGE]), template("button", text="x", buttons=[POSTBACK, PAGE])),
            (
                say.carousel(
                    [
                        say.element(
                            "A",
                            "b",
                            "https://example.com/a.png",
                            [say.postback("Yes", "yes:1"), say.share()],
                            "https://example.com/a",
                        )
                    ]
                ),
                template(
                    "generic",
                    elements=[
                        {
                            "title": "A",
                            "subtitle": "b",
                            "image_url": "https://example.com/a.png",
                            "default_action": {"type": "web_url", "url": "https://example.com/a"},
                            "buttons": [POSTBACK, SHARE],
                        }
                    ],
                ),
            ),
            (
                say.list_template([say.element("A"), say.element("B")], [say.call("Call", "+3225550123")]),
                template("list", elements=[{"title": "A"}, {"title": "B"}], buttons=[PHONE]),
            ),
            (
                say.list_template([say.element("A"), say.element("B")]),
                template("list", elements=[{"title": "A"}, {"title": "B"}]),
            ),
            (say.media("image", "https://example.com/a"), attached("image", url="https://example.com/a")),
            (
                say.media("file", "https://example.com/a", reusable=False),
                attached("file", url="https://example.com/a", is_reusable=False),
            ),
            (
                say.event("order.placed", drink="tea"),
                {"type": "event", "name": "order.placed", "drink": "tea"},
            ),
        ],
    )
    def test_is_in_the_contract(self, built: dict[str, Any], expected: dict[str, Any]) -> None:
        assert built == expected
        assert warnings_of(built) == []


def test_an_attachment_is_read_with_its_parts() -> None:
    read = parse(template("button", text="x", buttons=[POSTBACK]))
    assert isinstance(read, Attached)
    assert read.attachment.payload.model_dump() == {
        "template_type": "button",
        "text": "x",
        "buttons": [POSTBACK],
    }
