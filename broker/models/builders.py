"""Builders of message objects, for bots: each returns a plain JSON object of the wire contract."""

from collections.abc import Sequence
from typing import Any, Literal

Json = dict[str, Any]


def text(said: str) -> Json:
    """Say something."""
    return {"text": said}


def quick_replies(said: str, choices: Sequence[tuple[str, str] | Json]) -> Json:
    """Say something and suggest answers, each a title and its payload, or an object of its own."""
    replies = [
        {"content_type": "text", "title": choice[0], "payload": choice[1]}
        if isinstance(choice, tuple)
        else choice
        for choice in choices
    ]
    return {"text": said, "quick_replies": replies}


def location_request() -> Json:
    """Make a suggested answer that sends where the user is."""
    return {"content_type": "location"}


def postback(title: str, payload: str) -> Json:
    """Make a button that sends its payload back."""
    return {"type": "postback", "title": title, "payload": payload}


def link(title: str, url: str) -> Json:
    """Make a button that opens a page."""
    return {"type": "web_url", "title": title, "url": url}


def call(title: str, number: str) -> Json:
    """Make a button that calls a number."""
    return {"type": "phone_number", "title": title, "payload": number}


def buttons(said: str, choices: Sequence[Json]) -> Json:
    """Say something above one to three buttons."""
    return _template({"template_type": "button", "text": said, "buttons": list(choices)})


def share() -> Json:
    """Make a button that passes its card on to somebody else."""
    return {"type": "element_share"}


def element(
    title: str,
    subtitle: str | None = None,
    image_url: str | None = None,
    choices: Sequence[Json] = (),
    url: str | None = None,
) -> Json:
    """Make a card of a carousel, or a row of a list; a tap on it opens `url`."""
    made: Json = {"title": title}
    if subtitle is not None:
        made["subtitle"] = subtitle
    if image_url is not None:
        made["image_url"] = image_url
    if url is not None:
        made["default_action"] = {"type": "web_url", "url": url}
    if choices:
        made["buttons"] = list(choices)
    return made


def carousel(elements: Sequence[Json]) -> Json:
    """Show one to ten cards side by side."""
    return _template({"template_type": "generic", "elements": list(elements)})


def list_template(elements: Sequence[Json], below: Sequence[Json] = ()) -> Json:
    """Show two to four rows, with at most one button below."""
    payload: Json = {"template_type": "list", "elements": list(elements)}
    if below:
        payload["buttons"] = list(below)
    return _template(payload)


def media(
    kind: Literal["image", "video", "audio", "file"], url: str, *, reusable: bool | None = None
) -> Json:
    """Show an image, or offer a video, audio or a file; the medium may keep a reusable one."""
    payload: Json = {"url": url}
    if reusable is not None:
        payload["is_reusable"] = reusable
    return {"attachment": {"type": kind, "payload": payload}}


def event(name: str, **fields: Any) -> Json:
    """Tell the receiver something that is not for the user's eyes."""
    return {"type": "event", "name": name, **fields}


def _template(payload: Json) -> Json:
    return {"attachment": {"type": "template", "payload": payload}}
