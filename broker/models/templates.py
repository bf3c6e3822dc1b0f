"""What templates are made of: buttons, cards, and the three templates. Section 3 of the wire contract.

Fields that it does not name are kept. Counts are part of a template's shape, and so of these models; lengths
are a medium's own limits, for which broker.models.message_objects has warnings.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field


class Shape(BaseModel):
    """A part of a message object: unknown fields kept, no number taken for a text."""

    model_config = ConfigDict(extra="allow", frozen=True)


class PostbackButton(Shape):
    """A button that sends its payload back, unchanged, as a user's message."""

    type: Literal["postback"]
    title: str
    payload: str


class UrlButton(Shape):
    """A button that opens a page."""

    type: Literal["web_url"]
    title: str
    url: str


class PhoneButton(Shape):
    """A button that calls the number in its payload."""

    type: Literal["phone_number"]
    title: str
    payload: str


class ShareButton(Shape):
    """A button that passes the card on to somebody else; its medium may have a title of its own for it."""

    type: Literal["element_share"]
    title: str | None = None


Button = Annotated[PostbackButton | UrlButton | PhoneButton | ShareButton, Field(discriminator="type")]


class DefaultAction(Shape):
    """What a tap on a card itself opens."""

    type: Literal["web_url"]
    url: str


class Element(Shape):
    """A card of a carousel."""

    title: str
    subtitle: str | None = None
    image_url: str | None = None
    item_url: str | None = None
    default_action: DefaultAction | None = None
    buttons: list[Button] | None = Field(None, max_length=3)


class ListElement(Shape):
    """A line of a list."""

    title: str
    subtitle: str | None = None
    image_url: str | None = None
    default_action: DefaultAction | None = None
    buttons: list[Button] | None = Field(None, max_length=1)


class ButtonTemplate(Shape):
    """A text with one to three buttons."""

    template_type: Literal["button"]
    text: str | None = None
    buttons: list[Button] = Field(min_length=1, max_length=3)


class GenericTemplate(Shape):
    """A carousel of one to ten cards."""

    template_type: Literal["generic"]
    elements: list[Element] = Field(min_length=1, max_length=10)


class ListTemplate(Shape):
    """Two to four lines, with at most one button below them."""

    template_type: Literal["list"]
    elements: list[ListElement] = Field(min_length=2, max_length=4)
    buttons: list[Button] | None = Field(None, max_length=1)


Template = Annotated[ButtonTemplate | GenericTemplate | ListTemplate, Field(discriminator="template_type")]
