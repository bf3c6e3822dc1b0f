"""The record of an accepted message as bytes, written straight from the request, which has been checked.

It is what `accept` makes and `UserMessage` writes, without checking and copying once more what is in the request.
"""

from pydantic_core import to_json

from broker.models.acceptance import user_of
from broker.models.inbound import InboundMessage, MessageRequest, Profile, User
from broker.models.records import now

_MESSAGE = InboundMessage.__pydantic_serializer__
_PROFILE = Profile.__pydantic_serializer__
_USER = User.__pydantic_serializer__


def write_record(
    request: MessageRequest, *, channel_id: str, message_id: str, traceparent: str
) -> tuple[str, bytes]:
    """Accept the current form; returns the user's id and the record.

    The three texts are written as they are: each must be one that Postbote made or matched against its pattern.
    """
    profile = request.user
    if profile is not None and profile.id:
        user_id = profile.id
        user = _PROFILE.to_json(profile)
    else:
        named = user_of(request)
        user_id = named.id
        user = _USER.to_json(named)
    received_at = now().isoformat().replace("+00:00", "Z")
    return user_id, b"".join(
        (
            f'{{"schemaVersion":1,"id":"{message_id}","channelId":"{channel_id}","user":'.encode(),
            user,
            *_said(request.message),
            b',"sessionData":',
            to_json(request.session_data) if request.session_data else b"{}",
            b',"extra":',
            to_json(request.model_extra) if request.model_extra else b"{}",
            f',"source":"http","receivedAt":"{received_at}","traceparent":"{traceparent}"}}'.encode(),
        )
    )


def _said(message: InboundMessage | None) -> tuple[bytes, ...]:
    return () if message is None else (b',"message":', _MESSAGE.to_json(message))
