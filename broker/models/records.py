"""What travels inside Postbote: a user's message, and each response of the bot to it.

Both carry the version of their schema. A worker that meets a version it does not know keeps the record as
a dead letter rather than guess.
"""

from datetime import UTC, datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from broker.models.inbound import InboundMessage, User


class Record(BaseModel):
    """A record on a queue: camelCase in JSON, frozen, strict about fields it does not know."""

    model_config = ConfigDict(
        alias_generator=to_camel,
        validate_by_name=True,
        validate_by_alias=True,
        serialize_by_alias=True,
        frozen=True,
    )


def now() -> datetime:
    """Tell the time, in UTC."""
    return datetime.now(UTC)


class UserMessage(Record):
    """One message of a user to a bot, validated, whichever door it came in by."""

    schema_version: Literal[1] = 1
    id: str
    channel_id: str
    user: User
    message: InboundMessage
    session_data: dict[str, Any] = Field(default_factory=dict)
    source: Literal["http", "legacy", "amqp"] = "http"
    received_at: datetime = Field(default_factory=now)
    #: W3C Trace Context, made at the door where the sender brought none.
    traceparent: str | None = None


class BotResponse(Record):
    """One message of the bot: the `index`-th (from 1) of `count` that answer the user's message `in_reply_to`."""

    schema_version: Literal[1] = 1
    id: str
    channel_id: str
    user_id: str
    in_reply_to: str
    index: int = Field(ge=1)
    count: int = Field(ge=1)
    #: 1 for the first response of a conversation, then one more each, without gaps.
    message_counter: int = Field(ge=1)
    kind: str
    #: A message object of the wire contract, as the bot gave it; unknown fields pass through unchanged.
    message: dict[str, Any]
    created_at: datetime = Field(default_factory=now)
    #: The channel's revision when the bot answered: whoever delivers must know its webhooks at least so new.
    channel_revision: int = 0
    traceparent: str | None = None
