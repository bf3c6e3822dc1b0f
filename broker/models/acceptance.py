"""Acceptance: each door's request becomes one UserMessage. Pure."""

from collections.abc import Mapping
from typing import Any, Literal

from broker.models.inbound import (
    InboundMessage,
    LegacyMessageRequest,
    MessageRequest,
    Part,
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
    return UserMessage(
        id=message_id,
        channel_id=channel_id,
        user=user_of(request),
        message=request.message,
        session_data=request.session_data,
        extra=_unknown(request),
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
    """Accept the older form; a text that is the JSON of a click becomes a postback.

    The verify token has done its work at the door and goes no further.
    """
    return UserMessage(
        id=message_id,
        channel_id=channel_id,
        user=User.read(
            {**_unknown(request.sender), "id": request.sender.id, "preferredLanguage": request.locale}
        ),
        message=_legacy_message(request.text),
        extra=_unknown(request),
        source="legacy",
        received_at=now(),
        traceparent=traceparent,
    )


def user_of(request: MessageRequest) -> User:
    """Say whose message it is."""
    profile = request.user
    if profile is None:
        return User.read({"id": request.conversation_id})
    return User.read({**profile.model_dump(), "id": profile.id or request.conversation_id})


def _legacy_message(text: str) -> InboundMessage:
    click = legacy_click(text)
    if click is None:
        return InboundMessage(text_message=TextMessage(text=text))
    return InboundMessage(
        postback_message=PostbackMessage.read(
            {
                **_unknown(click),
                "title": click.caption,
                "payload": click.payload,
                "nextDialogstateId": click.next_dialogstate_id,
                "sessionDataToSet": (*click.parameters, *click.params),
            }
        )
    )


def _unknown(part: Part) -> Mapping[str, Any]:
    return part.model_extra or {}
