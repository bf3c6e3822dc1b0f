"""What a webhook receives: section 2 of the wire contract."""

from pydantic_core import to_json

from broker.models.records import BotResponse


def webhook_body(response: BotResponse, verify_token: str) -> bytes:
    """Write the body of a delivery: compact JSON, the same bytes for the same response and token."""
    return to_json(
        {
            "recipient": {"id": response.user_id},
            "senderId": response.user_id,
            "messageCounter": response.message_counter,
            "verifyToken": verify_token,
            "message": response.message,
        }
    )
