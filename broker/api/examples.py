"""Examples in the API's description; each is as its schema has it."""

from typing import Any

_USER = {"id": "cust-7f3a"}

MESSAGES: dict[str, dict[str, Any]] = {
    "text": {
        "message": {"textMessage": {"text": "Where is my parcel?"}},
        "user": {**_USER, "firstName": "Ada", "preferredLanguage": "nl"},
        "sessionData": {"address.city": "Gent"},
    },
    "introduction": {"message": {"introMessage": {}}, "user": _USER},
    "location": {
        "message": {"locationMessage": {"coordinates": {"lat": 51.05, "long": 3.72}}},
        "user": _USER,
    },
    "click": {
        "message": {
            "postbackMessage": {
                "title": "Track it",
                "payload": "track",
                "sessionDataToSet": [{"key": "topic", "value": "parcel"}],
            }
        },
        "conversationId": "cust-7f3a",
    },
}
LEGACY_MESSAGE = {
    "text": "hello",
    "sender": {"id": "cust-7f3a"},
    "verifyToken": "s3cr3t-demo",
    "locale": "nl",
}
CHANNEL = {"name": "Shop", "bot": {"type": "echo"}}
WEBHOOK = {"url": "https://example.com/bot", "events": ["response.#"], "timeoutSeconds": 10}
DELIVERED = {
    "recipient": {"id": "cust-7f3a"},
    "senderId": "cust-7f3a",
    "messageCounter": 1,
    "verifyToken": "s3cr3t-demo",
    "message": {"text": "Your parcel arrives on Friday."},
}

#: By operation, the bodies of requests.
REQUESTS: dict[str, dict[str, dict[str, Any]]] = {
    "postMessage": MESSAGES,
    "postLegacyMessage": {"text": LEGACY_MESSAGE},
    "createChannel": {"echo": CHANNEL},
    "createWebhook": {"all": WEBHOOK},
}
