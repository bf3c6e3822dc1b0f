"""What a user's message looks like at each door: the current form, the older one, and the one on the queue.

Section 1 of the wire contract. Fields that it does not name are kept and carried through; a field that it
does name may also be null, which is no different from its not being there.
"""

import re
from functools import partial
from operator import is_
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    model_validator,
)
from pydantic_core import InitErrorDetails, PydanticCustomError, to_json

from broker.models.json_values import require_plain
from broker.models.session import apply_session_data, require_session_fits
from broker.models.wire import Wire

#: Text that can be a word of a routing key; ask with fullmatch.
CHANNEL_ID = re.compile(r"^[A-Za-z0-9_-]{1,64}$")
#: How deep a dotted session key may reach, in parts.
MOST_PARTS = 16


def _no_nul(value: str) -> str:
    if "\x00" in value:
        raise ValueError("U+0000 is not allowed here")
    return value


def _id_as_text(value: Any) -> Any:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _session_key(value: str) -> str:
    parts = value.split(".")
    if not all(parts) or len(parts) > MOST_PARTS:
        raise ValueError(f"a session key has 1 to {MOST_PARTS} parts with single dots between them")
    return value


def _nothing_for_null(value: Any) -> Any:
    return () if value is None else value


def _empty_for_null(value: Any) -> Any:
    return {} if value is None else value


def _session_that_fits(value: dict[str, Any]) -> dict[str, Any]:
    # A key with dots takes more in the session than in the request.
    if value:
        session: dict[str, Any] = {}
        apply_session_data(session, value)
        require_session_fits(len(to_json(session)))
    return value


#: Asked of each field of each message that is written, and so not in Python.
_unset = partial(is_, None)

#: Names a user or a message; a whole number is taken too, since clients send them. 1 to 256 characters.
Identifier = Annotated[
    str,
    StringConstraints(min_length=1, max_length=256),
    BeforeValidator(_id_as_text),
    AfterValidator(_no_nul),
]
# As text, the pattern is matched in Rust, where $ is the end and not also the place before a last newline.
ChannelId = Annotated[str, StringConstraints(pattern=CHANNEL_ID.pattern)]
SessionKey = Annotated[str, StringConstraints(max_length=256), AfterValidator(_session_key)]
SessionData = Annotated[dict[SessionKey, Any], BeforeValidator(_empty_for_null)]
OptionalText = Annotated[str | None, Field(exclude_if=_unset)]
#: Names a state of a dialogue; older ones are whole numbers.
OptionalStateId = Annotated[str | None, BeforeValidator(_id_as_text), Field(exclude_if=_unset)]


class Part(Wire):
    """A part of a message: unknown fields are kept, and no number is taken for a text."""

    model_config = ConfigDict(extra="allow")


class Profile(Part):
    """What a client tells of a user; the id may be given as the request's conversationId instead."""

    id: Annotated[Identifier | None, Field(exclude_if=_unset)] = None
    first_name: OptionalText = None
    last_name: OptionalText = None
    preferred_language: OptionalText = None


class User(Profile):
    """Who wrote a message."""

    id: Identifier


class IntroMessage(Part):
    """Asks the bot for its introduction."""


class TextMessage(Part):
    """Typed text."""

    text: str


class Coordinates(Part):
    """A place on earth, in degrees."""

    lat: float = Field(ge=-90, le=90, strict=True)
    long: float = Field(ge=-180, le=180, strict=True)


class LocationMessage(Part):
    """A location."""

    coordinates: Coordinates


class SessionVariable(Part):
    """A variable that a click writes to the session."""

    key: SessionKey
    value: Any = None


SessionVariables = Annotated[tuple[SessionVariable, ...], BeforeValidator(_nothing_for_null)]


class PostbackMessage(Part):
    """A click on a button or a quick reply; `payload` is the button's own, unchanged."""

    title: OptionalText = None
    payload: OptionalText = None
    next_dialogstate_id: OptionalStateId = None
    session_data_to_set: SessionVariables = ()


class InboundMessage(Part):
    """Exactly one of the four kinds of message."""

    intro_message: Annotated[IntroMessage | None, Field(exclude_if=_unset)] = None
    text_message: Annotated[TextMessage | None, Field(exclude_if=_unset)] = None
    location_message: Annotated[LocationMessage | None, Field(exclude_if=_unset)] = None
    postback_message: Annotated[PostbackMessage | None, Field(exclude_if=_unset)] = None

    @model_validator(mode="after")
    def _exactly_one(self) -> "InboundMessage":
        missing = (
            (self.intro_message is None)
            + (self.text_message is None)
            + (self.location_message is None)
            + (self.postback_message is None)
        )
        if missing != 3:
            raise ValueError(
                "give exactly one of introMessage, textMessage, locationMessage and postbackMessage"
            )
        return self


class Body(Part):
    """A whole body from outside: what some reader of JSON could not read is refused, anywhere in it."""

    @model_validator(mode="before")
    @classmethod
    def _plain(cls, value: Any) -> Any:
        return require_plain(value)


_NO_MESSAGE = InitErrorDetails(
    type=PydanticCustomError("missing", "give message; or sessionData alone, to write to the session"),
    loc=("message",),
    input=None,
)


class MessageRequest(Body):
    """The current form; the user is named by `user.id`, or by `conversationId` where that is not given.

    Without a message, its sessionData is written to the session, and the bot is not asked.
    """

    message: InboundMessage | None = None
    user: Profile | None = None
    session_data: Annotated[SessionData, AfterValidator(_session_that_fits)] = Field(default_factory=dict)
    conversation_id: Identifier | None = None

    @model_validator(mode="after")
    def _somebody_something(self) -> "MessageRequest":
        if self.message is None and not self.session_data:
            raise ValidationError.from_exception_data(type(self).__name__, [_NO_MESSAGE])
        if (self.user is None or self.user.id is None) and self.conversation_id is None:
            raise ValueError("give user.id, or conversationId")
        return self


class QueuedMessageRequest(MessageRequest):
    """The form on the queue: the current one with the channel beside it, and perhaps an id of the message."""

    channel_id: ChannelId
    id: Identifier | None = None


class LegacySender(Part):
    """Who wrote it, in the older form."""

    id: Identifier


class LegacyProof(Wire):
    """The proof of the older form; nothing else of a body is looked at, or made an object of Python."""

    # With a default: the error that it is missing would hold the whole body.
    verify_token: str | None = None


class LegacyMessageRequest(Body):
    """The older form, whose verify token is its proof."""

    text: str
    sender: LegacySender
    verify_token: str
    locale: str | None = None


class LegacyClick(Body):
    """A click as the older form has it: JSON written into the text."""

    type: Literal["button", "quickreply"]
    caption: str | None = None
    payload: str | None = None
    next_dialogstate_id: Annotated[str | None, BeforeValidator(_id_as_text)] = None
    #: Two names for what it sets; buttons in the field have either, or both.
    params: SessionVariables = ()
    parameters: SessionVariables = ()


def legacy_click(text: str) -> LegacyClick | None:
    """Read a click out of an older form's text; None where it is just text."""
    if not text.lstrip().startswith("{"):
        return None
    try:
        return LegacyClick.model_validate_json(text)
    except ValidationError:
        return None
