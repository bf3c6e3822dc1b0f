"""What webhooks receive, for the API's description: section 2 and 3 of the wire contract."""

from typing import Annotated, Any

from pydantic import ConfigDict, Field, TypeAdapter

from broker.api.history_schemas import Recipient
from broker.api.schemas import Shape
from broker.models.message_objects import MessageObject

_REF = "#/components/schemas/{model}"


class WebhookBody(Shape):
    """One message of the bot, as it is posted to each webhook of its channel, in the order in which it was said."""

    model_config = ConfigDict(json_schema_extra={"additionalProperties": True})

    recipient: Recipient
    #: The user's id, as in `recipient`: some receivers read the one, some the other.
    sender_id: str
    message_counter: Annotated[
        int,
        Field(
            ge=1,
            description="1 for the first message of a conversation, then one more each, without gaps; the same on "
            "every retry.",
        ),
    ]
    verify_token: Annotated[str, Field(description="The webhook's verify token, or the channel's.")]
    message: dict[str, Any]


HEADERS = {
    "webhook-id": ("The delivery's id, the same on every retry (Standard Webhooks 1.0).", True),
    "webhook-timestamp": ("When this attempt was made, in epoch seconds.", True),
    "webhook-signature": (
        "`v1,` and the signature in base64; several with blanks between after a rotation.",
        True,
    ),
    "postbote-in-reply-to": ("The id of the user's message that this answers.", True),
    "postbote-turn": ("Which response of its turn it is, and how many there are: `1/3`.", True),
    "traceparent": ("W3C Trace Context, going on from the user's message.", False),
}


def webhook_schemas() -> dict[str, Any]:
    """Describe what is posted, and the message objects in it."""
    objects = TypeAdapter(MessageObject).json_schema(ref_template=_REF)
    known = objects.pop("$defs")
    body = WebhookBody.model_json_schema(ref_template=_REF)
    known.update(body.pop("$defs"))
    body["properties"]["message"] = {"$ref": _REF.format(model="MessageObject")}
    other = {
        "title": "OtherMessage",
        "description": "Whatever else a bot says passes through unchanged.",
        "type": "object",
        "additionalProperties": True,
    }
    return {
        **known,
        "WebhookBody": body,
        "OtherMessage": other,
        "MessageObject": {
            "title": "MessageObject",
            "description": "What the bot said. Fields that are not named here pass through unchanged.",
            "anyOf": [*objects["anyOf"], {"$ref": _REF.format(model="OtherMessage")}],
        },
    }


def webhooks(example: dict[str, Any]) -> dict[str, Any]:
    """Describe the request that registered URLs get."""
    return {
        "botMessage": {
            "post": {
                "operationId": "receiveBotMessage",
                "summary": "Receive what the bot said",
                "description": "Posted to a webhook's URL: one request for each message of the bot, in order, again "
                "and again until it is answered with a 2xx, at most by the retry schedule. Any 2xx is a success, and "
                "its body is ignored. Redirects are not followed.",
                "tags": ["webhooks"],
                "security": [],
                "parameters": [
                    {
                        "in": "header",
                        "name": name,
                        "description": description,
                        "required": required,
                        "schema": {"type": "string"},
                    }
                    for name, (description, required) in HEADERS.items()
                ],
                "requestBody": {
                    "required": True,
                    "content": {
                        "application/json": {
                            "schema": {"$ref": _REF.format(model="WebhookBody")},
                            "examples": {"text": {"value": example}},
                        }
                    },
                },
                "responses": {
                    "2XX": {"description": "It is delivered."},
                    "410": {"description": "The webhook is disabled."},
                    "429": {"description": "It is tried again, after Retry-After where that is given."},
                    "4XX": {"description": "408 and 425 are tried again; others a few times, then given up."},
                    "5XX": {"description": "It is tried again."},
                },
            }
        }
    }
