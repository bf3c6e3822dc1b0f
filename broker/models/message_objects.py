"""Message objects: what a bot says, as section 3 of the wire contract has it.

Validation here serves those who write bots. What a bot says is never refused on its way: an object of no known
kind passes through as kind `other`, and unknown fields stay as they are.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

Json = dict[str, Any]


class MessageObject(BaseModel):
    """A part of a message object; unknown fields are kept."""

    model_config = ConfigDict(extra="allow", frozen=True)


class Button(MessageObject):
    """A button; a postback's payload is opaque, and comes back unchanged when it is clicked."""

    type: Literal["postback", "web_url", "phone_number", "element_share"]
    title: str | None = None
    payload: str | None = None
    url: str | None = None


class DefaultAction(MessageObject):
    """What a click on an element as a whole does."""

    type: Literal["web_url"]
    url: str


class QuickReply(MessageObject):
    """A suggested answer that goes away when one is chosen."""

    content_type: Literal["text", "location", "user_email", "user_phone_number"]
    title: str | None = None
    payload: str | None = None
    image_url: str | None = None


class Text(MessageObject):
    """Text, perhaps with quick replies."""

    text: str
    quick_replies: list[QuickReply] | None = None


class Element(MessageObject):
    """A card of a carousel."""

    title: str
    subtitle: str | None = None
    image_url: str | None = None
    item_url: str | None = None
    default_action: DefaultAction | None = None
    buttons: Annotated[list[Button], Field(max_length=3)] | None = None


class Row(Element):
    """A row of a list."""

    buttons: Annotated[list[Button], Field(max_length=1)] | None = None


class ButtonTemplate(MessageObject):
    """Text with one to three buttons."""

    template_type: Literal["button"]
    text: str | None = None
    buttons: Annotated[list[Button], Field(min_length=1, max_length=3)]


class GenericTemplate(MessageObject):
    """A carousel of up to ten cards."""

    template_type: Literal["generic"]
    elements: Annotated[list[Element], Field(min_length=1, max_length=10)]


class ListTemplate(MessageObject):
    """A list of two to four rows, with at most one button below."""

    template_type: Literal["list"]
    elements: Annotated[list[Row], Field(min_length=2, max_length=4)]
    buttons: Annotated[list[Button], Field(max_length=1)] | None = None


Template = Annotated[ButtonTemplate | GenericTemplate | ListTemplate, Field(discriminator="template_type")]


class TemplateAttachment(MessageObject):
    """An attachment that is a template."""

    type: Literal["template"]
    payload: Template


class MediaPayload(MessageObject):
    """Where the media are."""

    url: str
    is_reusable: bool | None = None


class MediaAttachment(MessageObject):
    """An attachment that is an image, a video, audio or a file."""

    type: Literal["image", "video", "audio", "file"]
    payload: MediaPayload


class Attached(MessageObject):
    """A message that is an attachment."""

    attachment: Annotated[TemplateAttachment | MediaAttachment, Field(discriminator="type")]
    quick_replies: list[QuickReply] | None = None


class Event(MessageObject):
    """Something that is not for the user's eyes."""

    type: Literal["event"]


_KNOWN: TypeAdapter[Event | Attached | Text] = TypeAdapter(Event | Attached | Text)
_TEMPLATES = {"button": "buttons", "generic": "generic", "list": "list"}
_MEDIA = frozenset({"image", "video", "audio", "file"})

#: Messenger's limits: worth a warning, since other mediums differ.
LONGEST_BUTTON_TITLE, LONGEST_ELEMENT_TITLE, LONGEST_BUTTON_TEXT, MOST_QUICK_REPLIES = 20, 80, 640, 13


def parse(message: Mapping[str, Any]) -> Event | Attached | Text:
    """Read a message object; raises pydantic's ValidationError where it has no known shape."""
    return _KNOWN.validate_python(dict(message))


def kind_of(message: Mapping[str, Any]) -> str:
    """Name the kind, one word of a routing key: text, quick_replies, buttons, generic, list, media, event, other.

    Looks at what tells the kinds apart and at nothing else, so it never fails and costs little.
    """
    if message.get("type") == "event":
        return "event"
    attachment = message.get("attachment")
    if isinstance(attachment, Mapping):
        kind = attachment.get("type")
        payload = attachment.get("payload")
        if kind == "template" and isinstance(payload, Mapping):
            template = payload.get("template_type")
            return _TEMPLATES.get(template, "other") if isinstance(template, str) else "other"
        return "media" if isinstance(kind, str) and kind in _MEDIA else "other"
    if isinstance(message.get("text"), str):
        return "quick_replies" if message.get("quick_replies") else "text"
    return "other"


def warnings_of(message: Mapping[str, Any]) -> list[str]:
    """Say which of Messenger's limits a message object passes, and where it has no known shape."""
    try:
        read = parse(message)
    except ValidationError as error:
        fault = error.errors(include_url=False, include_input=False)[-1]
        return [f"no known shape: {'.'.join(map(str, fault['loc']))}: {fault['msg']}"]
    found: list[str] = []
    replies = getattr(read, "quick_replies", None) or []
    if len(replies) > MOST_QUICK_REPLIES:
        found.append(f"{len(replies)} quick replies; Messenger shows {MOST_QUICK_REPLIES}")
    if isinstance(read, Attached) and isinstance(read.attachment, TemplateAttachment):
        template = read.attachment.payload
        buttons = list(getattr(template, "buttons", None) or [])
        for element in getattr(template, "elements", []):
            buttons += element.buttons or []
            if len(element.title) > LONGEST_ELEMENT_TITLE:
                found.append(
                    f"an element's title has {len(element.title)} characters of {LONGEST_ELEMENT_TITLE}"
                )
        if isinstance(template, ButtonTemplate) and len(template.text or "") > LONGEST_BUTTON_TEXT:
            found.append(
                f"the text above buttons has {len(template.text or '')} characters of {LONGEST_BUTTON_TEXT}"
            )
        for button in buttons:
            if len(button.title or "") > LONGEST_BUTTON_TITLE:
                found.append(
                    f"a button's title has {len(button.title or '')} characters of {LONGEST_BUTTON_TITLE}"
                )
    return found
