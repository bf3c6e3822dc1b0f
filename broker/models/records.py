"""What travels inside Postbote: a user's message, and each response of the bot to it.

Both carry the version of their schema. A worker that meets a version it does not know keeps the record as
a dead letter rather than guess. Both are checked whenever they are read, since anybody with the broker's
password can publish what only looks like one: what passes can be kept, routed and written again.
"""

from datetime import UTC, datetime
from functools import partial
from operator import is_
from typing import Annotated, Any, Literal

from pydantic import AwareDatetime, Field, StringConstraints, model_validator

from broker.models.inbound import ChannelId, Identifier, InboundMessage, SessionData, User
from broker.models.json_values import DEEPEST, LARGEST_INTEGER, JsonObject, require_plain
from broker.models.wire import Wire

#: An identifier that Postbote made: a UUID, or as short.
RecordId = Annotated[str, StringConstraints(pattern=r"^[\x21-\x7e]{1,36}$")]
#: A moment at which reckoning with days more or less cannot leave the calendar.
Moment = Annotated[
    AwareDatetime, Field(ge=datetime(2000, 1, 1, tzinfo=UTC), lt=datetime(2200, 1, 1, tzinfo=UTC))
]
#: A whole number from 1 that fits a database's 64 bits.
Ordinal = Annotated[int, Field(ge=1, le=LARGEST_INTEGER)]
#: A word of a routing key.
KindWord = Annotated[str, StringConstraints(pattern=r"^[a-z_]{1,32}$")]
#: W3C Trace Context, made at the door where the sender brought none.
Traceparent = Annotated[
    Annotated[str, StringConstraints(max_length=512)] | None, Field(exclude_if=lambda value: value is None)
]


#: Asked of each message that is written, and so not in Python.
_unset = partial(is_, None)


def now() -> datetime:
    """Tell the time, in UTC."""
    return datetime.now(UTC)


class UserMessage(Wire):
    """One message of a user to a bot, validated, whichever door it came in by."""

    schema_version: Literal[1] = 1
    id: RecordId
    channel_id: ChannelId
    user: User
    #: None where the user said nothing: `session_data` is written to the session then, and no bot is asked.
    message: Annotated[InboundMessage | None, Field(exclude_if=_unset)] = None
    session_data: SessionData = Field(default_factory=dict)
    #: Fields beside the message that the wire contract does not name, as the sender gave them.
    extra: dict[str, Any] = Field(default_factory=dict)
    source: Literal["http", "legacy", "amqp"] = "http"
    received_at: Moment = Field(default_factory=now)
    traceparent: Traceparent = None

    @model_validator(mode="before")
    @classmethod
    def _plain(cls, value: Any) -> Any:
        # Two levels more than a request has: a click of the older form is now inside `message.postbackMessage`.
        return require_plain(value, DEEPEST + 2)


class BotResponse(Wire):
    """One message of the bot: the `index`-th (from 1) of `count` that answer the message `in_reply_to`."""

    schema_version: Literal[1] = 1
    id: RecordId
    channel_id: ChannelId
    user_id: Identifier
    in_reply_to: RecordId
    index: Ordinal
    count: Ordinal
    #: 1 for the first response of a conversation, then one more each, without gaps.
    message_counter: Ordinal
    kind: KindWord
    #: A message object of the wire contract, as the bot gave it; unknown fields pass through unchanged.
    message: JsonObject
    created_at: Moment = Field(default_factory=now)
    #: The channel's revision when the bot answered: whoever delivers must know its webhooks at least so new.
    channel_revision: int = Field(0, ge=0, le=LARGEST_INTEGER)
    traceparent: Traceparent = None
