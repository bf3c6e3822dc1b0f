"""Acceptance: each door's request becomes one UserMessage. Pure."""

from typing import Literal

from broker.models.inbound import (
    InboundMessage,
    LegacyMessageRequest,
    MessageRequest,
    PostbackMessage,
    QueuedMessageRequest,
    TextMessage,
    User,
    legacy_click,
)
from broker.models.records import UserMessage, now


def accept(
    request: MessageRequest,
    *,
    channel_id: str,
    message_id: str,
    source: Literal["http", "amqp"] = "http",
    traceparent: str | None = None,
) -> UserMessage:
    """Accept the current form. Where both a user and a conversation are named, the user's id counts."""
    user = request.user if request.user is not None else User(id=request.conversation_id or "")
    return UserMessage(
        id=message_id,
        channel_id=channel_id,
        user=user,
        message=request.message,
        session_data=request.session_data,
        source=source,
        received_at=now(),
        traceparent=traceparent,
    )


def accept_queued(
    request: QueuedMessageRequest, *, message_id: str, traceparent: str | None = None
) -> UserMessage:
    """Accept the form on the queue."""
    return accept(
        request, channel_id=request.channel_id, message_id=message_id, source="amqp", traceparent=traceparent
    )


def accept_legacy(
    request: LegacyMessageRequest, *, channel_id: str, message_id: str, traceparent: str | None = None
) -> UserMessage:
    """Accept the older form; text that is the JSON of a click becomes a postback."""
    click = legacy_click(request.text)
    if click is None:
        message = InboundMessage(text_message=TextMessage(text=request.text))
    else:
        message = InboundMessage(
            postback_message=PostbackMessage(
                title=click.caption,
                payload=click.payload,
                next_dialogstate_id=click.next_dialogstate_id,
                session_data_to_set=click.params,
            )
        )
    return UserMessage(
        id=message_id,
        channel_id=channel_id,
        user=User(id=request.sender.id, preferred_language=request.locale),
        message=message,
        source="legacy",
        received_at=now(),
        traceparent=traceparent,
    )
