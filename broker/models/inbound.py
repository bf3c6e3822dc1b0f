"""What a user's message looks like at each door: the current form, the older one, and the one on the queue.

Section 1 of the wire contract. Fields that it does not name are kept and carried through.
"""

import math
import re
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    model_validator,
)
from pydantic.alias_generators import to_camel

#: Integers beyond this are read differently by different JSON readers (RFC 8259, section 6), or not at all.
LARGEST_INTEGER = 2**63 - 1
DEEPEST = 32
#: Text that becomes a word of a routing key.
CHANNEL_ID = re.compile(r"^[A-Za-z0-9_-]{1,64}$")


def _plain(value: Any, depth: int = 0) -> Any:
    if depth > DEEPEST:
        raise ValueError(f"nested more than {DEEPEST} levels deep")
    match value:
        case bool() | None:
            pass
        case str():
            value.encode()  # a lone surrogate cannot be written as UTF-8
        case int():
            if abs(value) > LARGEST_INTEGER:
                raise ValueError("an integer is beyond 64 bits")
        case float():
            if not math.isfinite(value):
                raise ValueError("NaN and Infinity are no JSON")
        case dict():
            for key, inner in value.items():
                _plain(key, depth + 1)
                _plain(inner, depth + 1)
        case list():
            for inner in value:
                _plain(inner, depth + 1)
    return value


def _no_nul(value: str) -> str:
    if "\x00" in value:
        raise ValueError("U+0000 is not allowed here")
    return value


def _id_as_text(value: Any) -> Any:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _session_key(value: str) -> str:
    parts = value.split(".")
    if not all(parts) or len(parts) > 16 or len(value) > 256:
        raise ValueError("a session key has 1 to 16 parts with dots between, and at most 256 characters")
    return value


Identifier = Annotated[
    str,
    BeforeValidator(_id_as_text),
    AfterValidator(_no_nul),
    StringConstraints(min_length=1, max_length=256),
]
ChannelId = Annotated[str, StringConstraints(pattern=CHANNEL_ID)]
SessionKey = Annotated[str, AfterValidator(_session_key)]


class Part(BaseModel):
    """A part of a message: camelCase in JSON, unknown fields kept, no number taken for a text."""

    model_config = ConfigDict(
        alias_generator=to_camel,
        validate_by_name=True,
        validate_by_alias=True,
        serialize_by_alias=True,
        extra="allow",
        frozen=True,
        allow_inf_nan=False,
    )


class User(Part):
    """Who wrote it. A number is taken as an id too, since clients send them."""

    id: Identifier
    first_name: str | None = None
    last_name: str | None = None
    preferred_language: str | None = None


class IntroMessage(Part):
    """Asks the bot for its introduction."""


class TextMessage(Part):
    """Typed text."""

    text: str


class Coordinates(Part):
    """A place on earth, in degrees."""

    lat: float = Field(ge=-90, le=90)
    long: float = Field(ge=-180, le=180)


class LocationMessage(Part):
    """A location."""

    coordinates: Coordinates


class SessionVariable(Part):
    """A variable that a click writes to the session."""

    key: SessionKey
    value: Any = None


class PostbackMessage(Part):
    """A click on a button or a quick reply; `payload` is the button's own, unchanged."""

    title: str | None = None
    payload: str | None = None
    next_dialogstate_id: str | None = None
    session_data_to_set: tuple[SessionVariable, ...] = ()


class InboundMessage(Part):
    """Exactly one of the four kinds of message."""

    intro_message: IntroMessage | None = None
    text_message: TextMessage | None = None
    location_message: LocationMessage | None = None
    postback_message: PostbackMessage | None = None

    @model_validator(mode="after")
    def _exactly_one(self) -> "InboundMessage":
        given = (self.intro_message, self.text_message, self.location_message, self.postback_message)
        if sum(part is not None for part in given) != 1:
            raise ValueError(
                "give exactly one of introMessage, textMessage, locationMessage and postbackMessage"
            )
        return self


class MessageRequest(Part):
    """The current form; the user is named by `user.id`, or by `conversationId` where there is no user."""

    message: InboundMessage
    user: User | None = None
    session_data: dict[SessionKey, Any] = Field(default_factory=dict)
    conversation_id: Identifier | None = None

    @model_validator(mode="before")
    @classmethod
    def _only_plain_json(cls, value: Any) -> Any:
        return _plain(value)

    @model_validator(mode="after")
    def _somebody(self) -> "MessageRequest":
        if self.user is None and self.conversation_id is None:
            raise ValueError("give user.id, or conversationId")
        return self


class QueuedMessageRequest(MessageRequest):
    """The form on the queue: the current one with the channel beside it, and perhaps an id of its own."""

    channel_id: ChannelId
    id: Identifier | None = None


class LegacySender(Part):
    """Who wrote it, in the older form."""

    id: Identifier


class LegacyMessageRequest(Part):
    """The older form, whose verify token is its proof."""

    text: str
    sender: LegacySender
    verify_token: str
    locale: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _only_plain_json(cls, value: Any) -> Any:
        return _plain(value)


class LegacyClick(Part):
    """A click as the older form has it: JSON written into the text."""

    type: Annotated[str, StringConstraints(pattern="^(button|quickreply)$")]
    caption: str | None = None
    next_dialogstate_id: str | None = None
    params: tuple[SessionVariable, ...] = ()
    payload: str | None = None


def legacy_click(text: str) -> LegacyClick | None:
    """Read a click out of an older form's text; None where it is just text."""
    if not text.lstrip().startswith("{"):
        return None
    try:
        return LegacyClick.model_validate_json(text)
    except ValidationError:
        return None
