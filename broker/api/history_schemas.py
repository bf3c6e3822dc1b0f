"""What the API shows of what happened: turns, responses, deliveries, dead letters."""

import base64
from collections.abc import Sequence
from datetime import datetime
from typing import Literal

from broker.api.schemas import Listing, Shape
from broker.registry import records
from broker.registry.records import DeliveryStatus, JsonObject


class Attempt(Shape):
    """One HTTP try of a delivery."""

    number: int
    started_at: datetime
    duration_ms: int
    status_code: int | None
    error: str | None
    detail: str
    answer: str


class Delivery(Shape):
    """One response to one webhook, and what became of it."""

    id: str
    webhook_id: str
    channel_id: str
    user_id: str
    response_id: str
    message_counter: int
    status: DeliveryStatus
    reason: str | None
    attempt_count: int
    #: Of these, the ones before its last redrive, which its schedule counts no more.
    attempts_before: int
    created_at: datetime
    finished_at: datetime | None
    redriven_at: datetime | None

    @classmethod
    def of(cls, delivery: records.Delivery) -> "Delivery":
        """Show a delivery in short."""
        return cls.model_validate(delivery, from_attributes=True, by_name=True)


class DeliveryWithAttempts(Delivery):
    """A delivery with all its attempts; its response is here until it is delivered, then in the turns."""

    response: JsonObject | None
    attempts: list[Attempt]

    @classmethod
    def of(cls, delivery: records.Delivery) -> "DeliveryWithAttempts":
        """Show a delivery in full."""
        return cls.model_validate(delivery, from_attributes=True, by_name=True)


class Recipient(Shape):
    """Who it is for."""

    id: str


class TurnPlace(Shape):
    """Which response of its turn it is, from 1, and how many there are."""

    index: int
    count: int


class Response(Shape):
    """What the bot said, as a webhook gets it, and where it belongs."""

    recipient: Recipient
    sender_id: str
    message_counter: int
    message: JsonObject
    id: str
    in_reply_to: str
    turn: TurnPlace
    created_at: datetime

    @classmethod
    def of(cls, response: JsonObject) -> "Response":
        """Show a BotResponse record, given as JSON."""
        return cls(
            recipient=Recipient(id=response["userId"]),
            sender_id=response["userId"],
            message_counter=response["messageCounter"],
            message=response["message"],
            id=response["id"],
            in_reply_to=response["inReplyTo"],
            turn=TurnPlace(index=response["index"], count=response["count"]),
            created_at=response["createdAt"],
        )


class Responses(Shape):
    """Responses in order; ask again with `after` = `nextAfter`."""

    items: list[Response]
    next_after: int


class Turn(Shape):
    """A user's message and what the bot said to it."""

    message_id: str
    number: int
    message: JsonObject
    responses: list[Response]
    outcome: Literal["answered", "failed"]
    published: bool
    created_at: datetime

    @classmethod
    def of(cls, turn: records.Turn) -> "Turn":
        """Show a turn."""
        return cls(
            message_id=turn.message_id,
            number=turn.number,
            message=turn.message,
            responses=[Response.of(response) for response in turn.responses],
            outcome=turn.outcome,
            published=turn.published,
            created_at=turn.created_at,
        )


class DeadLetter(Shape):
    """What could not be processed, with the stage that gave it up and why."""

    id: str
    stage: str
    reason: str
    detail: str
    channel_id: str | None
    routing_key: str
    headers: JsonObject
    #: Text where it is UTF-8, base64 otherwise; `bodyEncoding` says which.
    body: str
    body_encoding: Literal["utf-8", "base64"]
    created_at: datetime
    #: When it was last published again; null where it never was.
    redriven_at: datetime | None

    @classmethod
    def of(cls, letter: records.DeadLetter) -> "DeadLetter":
        """Show a dead letter."""
        encoding: Literal["utf-8", "base64"] = "utf-8"
        try:
            body = letter.body.decode()
        except UnicodeDecodeError:
            body, encoding = base64.b64encode(letter.body).decode(), "base64"
        return cls(
            id=letter.id,
            stage=letter.stage,
            reason=letter.reason,
            detail=letter.detail,
            channel_id=letter.channel_id,
            routing_key=letter.routing_key,
            headers=letter.headers,
            body=body,
            body_encoding=encoding,
            created_at=letter.created_at,
            redriven_at=letter.redriven_at,
        )


class RedrivenDeliveries(Shape):
    """How many deliveries wait again; where `nextCursor` is not null there are more, and it gets them."""

    redriven: int
    next_cursor: str | None


class RedrivenDeadLetters(Shape):
    """How many were published again, and how many cannot go back; where `nextCursor` is not null there are more."""

    redriven: int
    refused: int
    next_cursor: str | None


class DeliveryList(Listing):
    """Deliveries of a channel, newest first."""

    items: Sequence[Delivery]


class TurnList(Listing):
    """Turns of a conversation, newest first."""

    items: Sequence[Turn]


class DeadLetterList(Listing):
    """Dead letters, newest first."""

    items: Sequence[DeadLetter]
