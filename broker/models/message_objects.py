"""Message objects: what a bot says, as section 3 of the wire contract has it.

The models here serve those who write bots and receivers. What a bot says is never refused on its way: an
object of no known kind passes through as kind `other`, and unknown fields stay as they are.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from broker.models.templates import Button, ButtonTemplate, Element, ListElement, Shape, Template

#: Messenger's limits: worth a warning, since other mediums differ.
LONGEST_BUTTON_TITLE, LONGEST_ELEMENT_TITLE, LONGEST_BUTTON_TEXT, MOST_QUICK_REPLIES = 20, 80, 640, 13

_TEMPLATES = {"button": "buttons", "generic": "generic", "list": "list"}
_MEDIA = frozenset({"image", "video", "audio", "file"})
#: The kinds of a message, each a word of a routing key and of a webhook's events.
KINDS = ("text", "quick_replies", *_TEMPLATES.values(), "media", "event", "other")


class Text(Shape):
    """Plain text."""

    text: str


class TextReply(Shape):
    """A suggested answer with words of its own; goes away when one is chosen."""

    content_type: Literal["text"]
    title: str
    payload: str
    image_url: str | None = None


class ProfileReply(Shape):
    """A suggested answer that the user's medium knows: where they are, or how to reach them."""

    content_type: Literal["location", "user_email", "user_phone_number"]


QuickReply = Annotated[TextReply | ProfileReply, Field(discriminator="content_type")]


class QuickReplies(Shape):
    """Text with suggested answers."""

    text: str
    quick_replies: list[QuickReply] = Field(min_length=1)


class TemplateAttachment(Shape):
    """An attachment that is a template."""

    type: Literal["template"]
    payload: Template


class MediaPayload(Shape):
    """Where the media are."""

    url: str
    is_reusable: bool | None = None


class MediaAttachment(Shape):
    """An attachment that is an image, a video, audio or another file."""

    type: Literal["image", "video", "audio", "file"]
    payload: MediaPayload


class Attached(Shape):
    """A message that is an attachment, perhaps with suggested answers below."""

    attachment: Annotated[TemplateAttachment | MediaAttachment, Field(discriminator="type")]
    quick_replies: list[QuickReply] | None = None


class Event(Shape):
    """Something that is not for the user's eyes."""

    type: Literal["event"]


MessageObject = Event | Attached | QuickReplies | Text


def parse(message: Mapping[str, Any]) -> MessageObject:
    """Read a message object; raises pydantic's ValidationError, saying where, if it has no known shape.

    What receivers look at first decides what it is read as: its type, its attachment, its quick replies.
    """
    if message.get("type") == "event":
        return Event.model_validate(message)
    if message.get("attachment") is not None:
        return Attached.model_validate(message)
    if message.get("quick_replies"):
        return QuickReplies.model_validate(message)
    return Text.model_validate(message)


def kind_of(message: object) -> str:
    """Name the kind, one of KINDS, as routing keys do.

    Looks at what tells the kinds apart and at nothing else, so it never fails and costs little.
    """
    if not isinstance(message, Mapping):
        return "other"
    if message.get("type") == "event":
        return "event"
    attachment = message.get("attachment")
    if attachment is not None:
        return _attached_kind(attachment)
    if isinstance(message.get("text"), str):
        return "quick_replies" if message.get("quick_replies") else "text"
    return "other"


def _attached_kind(attachment: object) -> str:
    if not isinstance(attachment, Mapping):
        return "other"
    kind, payload = attachment.get("type"), attachment.get("payload")
    if kind == "template" and isinstance(payload, Mapping):
        template = payload.get("template_type")
        return _TEMPLATES.get(template, "other") if isinstance(template, str) else "other"
    return "media" if isinstance(kind, str) and kind in _MEDIA else "other"


def warnings_of(message: Mapping[str, Any]) -> list[str]:
    """Say which of Messenger's limits a message object passes, or where it has no known shape."""
    try:
        return list(_limits_passed(parse(message)))
    except ValidationError as error:
        return [
            f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}"
            for fault in error.errors(include_url=False, include_input=False, include_context=False)
        ]


def _limits_passed(read: MessageObject) -> Iterator[str]:
    replies = read.quick_replies if isinstance(read, QuickReplies | Attached) else None
    if replies is not None and len(replies) > MOST_QUICK_REPLIES:
        yield f"{len(replies)} quick replies; Messenger shows {MOST_QUICK_REPLIES}"
    if isinstance(read, Attached) and isinstance(read.attachment, TemplateAttachment):
        template = read.attachment.payload
        if isinstance(template, ButtonTemplate):
            yield from _too_long("the text above the buttons", template.text, LONGEST_BUTTON_TEXT)
            yield from _buttons_too_long(template.buttons)
        else:
            yield from _elements_too_long(template.elements)
        if template.template_type == "list":
            yield from _buttons_too_long(template.buttons)


def _elements_too_long(elements: Sequence[Element | ListElement]) -> Iterator[str]:
    for number, element in enumerate(elements, start=1):
        yield from _too_long(f"the title of element {number}", element.title, LONGEST_ELEMENT_TITLE)
        yield from _buttons_too_long(element.buttons)


def _buttons_too_long(buttons: Sequence[Button] | None) -> Iterator[str]:
    for button in buttons or []:
        yield from _too_long("the title of a button", button.title, LONGEST_BUTTON_TITLE)


def _too_long(what: str, text: str | None, most: int) -> Iterator[str]:
    if text is not None and len(text) > most:
        yield f"{what} has {len(text)} characters; Messenger shows {most}: {text[:most]}…"
