"""The operations of the API, as its description names them, and the problems that each may answer with. Pure."""

from collections.abc import Iterator, Mapping
from typing import Any

#: What generated clients call them: never changed, for programs are written against these names.
OPERATION_IDS = {
    ("post", "/v1/channels/webhook/{channelId}/messages"): "postMessage",
    ("post", "/api/webhookMessage/{channelId}"): "postLegacyMessage",
    ("get", "/v1/channels"): "listChannels",
    ("post", "/v1/channels"): "createChannel",
    ("get", "/v1/channels/{channelId}"): "getChannel",
    ("patch", "/v1/channels/{channelId}"): "updateChannel",
    ("delete", "/v1/channels/{channelId}"): "deleteChannel",
    ("get", "/v1/channels/{channelId}/webhooks"): "listWebhooks",
    ("post", "/v1/channels/{channelId}/webhooks"): "createWebhook",
    ("get", "/v1/webhooks/{webhookId}"): "getWebhook",
    ("patch", "/v1/webhooks/{webhookId}"): "updateWebhook",
    ("delete", "/v1/webhooks/{webhookId}"): "deleteWebhook",
    ("post", "/v1/webhooks/{webhookId}/test"): "testWebhook",
    ("post", "/v1/webhooks/{webhookId}/rotate-secret"): "rotateWebhookSecret",
    ("post", "/v1/webhooks/{webhookId}/redrive"): "redriveWebhook",
    ("get", "/v1/channels/{channelId}/deliveries"): "listDeliveries",
    ("get", "/v1/deliveries/{deliveryId}"): "getDelivery",
    ("post", "/v1/deliveries/{deliveryId}/redrive"): "redriveDelivery",
    ("get", "/v1/dead-letters"): "listDeadLetters",
    ("post", "/v1/dead-letters/redrive"): "redriveDeadLetters",
    ("get", "/v1/dead-letters/{letterId}"): "getDeadLetter",
    ("post", "/v1/dead-letters/{letterId}/redrive"): "redriveDeadLetter",
    ("get", "/v1/channels/{channelId}/conversations/{userId}/turns"): "listTurns",
    ("get", "/v1/channels/{channelId}/conversations/{userId}/responses"): "listResponses",
    ("get", "/healthz"): "getHealth",
    ("get", "/readyz"): "getReadiness",
}
#: Problems of single operations, beside those that all like them have.
_OWN_PROBLEMS = {
    "postLegacyMessage": {"401"},
    "redriveDelivery": {"409"},
    "redriveDeadLetter": {"409"},
    "testWebhook": {"501"},
}

TAGS = [
    {"name": "messages", "description": "The doors by which users' messages come in."},
    {"name": "channels", "description": "Chat channels, by which bots are reached."},
    {"name": "webhooks", "description": "URLs that get what a channel's bot says."},
    {"name": "deliveries", "description": "What became of each response at each webhook."},
    {"name": "history", "description": "What users and bots said."},
    {"name": "dead letters", "description": "What was given up, and why."},
    {"name": "health", "description": "Whether this process lives, and can work."},
]

_RETRY_AFTER = {"Retry-After": {"$ref": "#/components/headers/RetryAfter"}}
_PROBLEMS: dict[str, tuple[str, dict[str, Any]]] = {
    "400": ("The request cannot be read: it is no HTTP or no JSON, or the query or a header is wrong.", {}),
    "401": (
        "The token is missing or wrong.",
        {"WWW-Authenticate": {"$ref": "#/components/headers/WWWAuthenticate"}},
    ),
    "404": ("There is no such thing.", {}),
    "409": ("It cannot be done as things are; `detail` says why.", {}),
    "413": ("The body is too large: at most 262,144 bytes are taken.", {}),
    "415": ("The body is not said to be JSON.", {}),
    "422": ("The body is JSON, but not as it has to be; `errors` says where.", {}),
    "429": ("The channel is over its rate.", _RETRY_AFTER),
    "501": ("This process makes no deliveries.", {}),
    "503": (
        "The broker or the database does not answer, or other bodies have all the room; nothing is lost, try again.",
        _RETRY_AFTER,
    ),
    "default": ("A problem; `detail` says what happened and what to do.", {}),
}

HEADERS = {
    "RetryAfter": {
        "description": "Seconds until it makes sense to try again.",
        "schema": {"type": "string", "pattern": "^[0-9]+$"},
    },
    "WWWAuthenticate": {"description": "How to prove who it is (RFC 6750).", "schema": {"type": "string"}},
    "Location": {"description": "Where what was created is.", "schema": {"type": "string"}},
    "RateLimit": {
        "description": "Messages a second that the channel may post.",
        "schema": {"type": "string"},
    },
    "RateRemaining": {"description": "What is left of them in this second.", "schema": {"type": "string"}},
    "RateReset": {
        "description": "When the next second begins, in epoch seconds.",
        "schema": {"type": "string"},
    },
}
RATE_HEADERS = {
    "x-ratelimit-limit": {"$ref": "#/components/headers/RateLimit"},
    "x-ratelimit-remaining": {"$ref": "#/components/headers/RateRemaining"},
    "x-ratelimit-reset": {"$ref": "#/components/headers/RateReset"},
}


def problem_responses() -> dict[str, Any]:
    """Describe the answers that are problems, once for all operations."""
    return {
        _name(status): {
            "description": description,
            **({"headers": headers} if headers else {}),
            "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}},
        }
        for status, (description, headers) in _PROBLEMS.items()
    }


def problems_of(operation_id: str, operation: Mapping[str, Any]) -> dict[str, Any]:
    """Tell which problems an operation may answer with."""
    statuses = sorted({*_statuses(operation), *_OWN_PROBLEMS.get(operation_id, ())})
    return {status: {"$ref": f"#/components/responses/{_name(status)}"} for status in [*statuses, "default"]}


def _statuses(operation: Mapping[str, Any]) -> Iterator[str]:
    yield "400"
    if operation.get("security"):
        yield "401"
    if any(parameter["in"] == "path" for parameter in operation.get("parameters", ())):
        yield "404"
    if "requestBody" in operation:
        yield from ("413", "415", "422")
    if "messages" in operation["tags"]:
        yield "429"
    yield "503"


def _name(status: str) -> str:
    return "Problem" if status == "default" else f"Problem{status}"
