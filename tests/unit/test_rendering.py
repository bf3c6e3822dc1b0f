"""What a person sees of a message in a terminal: everything in it, and nothing that obeys it."""

import io
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from broker.models import builders as say
from consumers.bots.demo_scenes import SCENES
from consumers.cli.rendering import render
from consumers.receiver import Checks

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=20,
)
KEYS = st.sampled_from(
    [
        "text",
        "attachment",
        "payload",
        "type",
        "template_type",
        "elements",
        "buttons",
        "quick_replies",
        "title",
        "url",
    ]
)
ODD_MESSAGES = st.recursive(
    st.none()
    | st.integers()
    | st.sampled_from(["template", "button", "generic", "list", "image", "event", "x"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=5),
    max_leaves=25,
)


def seen(message: object, checks: Checks = Checks(), width: int = 100, **body: object) -> str:  # noqa: B008
    out = io.StringIO()
    whole = {"senderId": "ada", "messageCounter": 7, "message": message, **body}
    Console(file=out, width=width, force_terminal=True, color_system=None).print(render(whole, checks))
    return out.getvalue()


@pytest.mark.parametrize("width", [40, 80, 200])
@pytest.mark.parametrize("scene", sorted(SCENES))
def test_every_text_title_and_target_is_shown_within_the_width(scene: str, width: int) -> None:
    for message in SCENES[scene]():
        shown = seen(message, width=width)
        assert all(len(line) <= width for line in shown.splitlines())
        flat = "".join(character for character in shown if character not in "│╭╮╰╯─ \n")
        for wanted in texts_of(message):
            assert wanted.replace(" ", "") in flat, shown


def texts_of(value: Any) -> list[str]:
    if isinstance(value, dict):
        shown = ("text", "title", "subtitle")
        found = [inner for key, inner in value.items() if key in shown and isinstance(inner, str)]
        return found + [text for inner in value.values() for text in texts_of(inner)]
    return [text for inner in value for text in texts_of(inner)] if isinstance(value, list) else []


def test_the_head_says_who_and_what_was_checked() -> None:
    assert "ada #7" in seen(say.text("hi"))
    assert "✓ signed" in seen(say.text("hi"))
    bad = seen(
        say.text("hi"),
        Checks(signature="its signature fits none of the secrets", token="its token is another"),
    )
    assert "✗ its signature fits none" in bad
    assert "✗ its token is another" in bad
    assert "repeat" in seen(say.text("hi"), Checks(order="repeat"))
    assert "missing" in seen(say.text("hi"), Checks(order="gap"))


@pytest.mark.parametrize("hostile", ["\x1b[2J\x1b[H", "\x07", "\x9b31m", "a\rb", "\u202egnp.exe"])
def test_control_characters_do_not_reach_the_terminal(hostile: str) -> None:
    shown = seen(
        say.buttons(hostile, [say.postback(hostile, hostile)]), senderId=hostile, messageCounter=hostile
    )
    shown += seen(say.text(hostile))
    assert not set(shown) & set("\x1b\x07\x9b\r\u202e")


def test_markup_is_shown_and_not_obeyed() -> None:
    assert "[red]not red[/red] [link=x]" in seen(say.text("[red]not red[/red] [link=x]"))


@given(JSON | ODD_MESSAGES, JSON, JSON)
def test_whatever_the_body_holds_is_rendered(message: object, sender: object, counter: object) -> None:
    seen(message, senderId=sender, messageCounter=counter)
