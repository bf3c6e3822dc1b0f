"""Identifiers and secrets: which are derived, so that a repeat looks like a repeat, and which are random."""

import base64
import hashlib
import secrets
from uuid import UUID

from broker.randomness import random_bytes

#: Namespace of every derived identifier. Changing it makes every redelivery look new to its receiver.
NAMESPACE = UUID("6f0d2f5e-6f0b-5d1c-9a3b-0d6a3f0c7b11")


_BEGUN = hashlib.sha1(NAMESPACE.bytes, usedforsecurity=False)


def new_message_id() -> str:
    """Make the id of a user message that came without one: a UUID of version 4 (RFC 9562, section 5.4)."""
    return _uuid(random_bytes(16), 4)


def new_repeatable_id() -> str:
    """Make the id of a user message that may come again under it: a UUID of version 8, of random bits."""
    return _uuid(random_bytes(16), 8)


def made_for_one(message_id: str) -> bool:
    """True for an id from `new_message_id`, which one publication has, and whatever the broker repeats of it."""
    return len(message_id) == 36 and message_id[14] == "4"


def message_id(channel_id: str, given: str) -> str:
    """Derive a message's id from the sender's own (an Idempotency-Key, an AMQP message-id), per channel."""
    return _derived(f"message/{channel_id}/{given}")


def response_id(message_id: str, index: int) -> str:
    """Derive the id of a bot response: the same whenever the same message is answered again."""
    return _derived(f"response/{message_id}/{index}")


def delivery_id(response_id: str, webhook_id: str) -> str:
    """Derive the id of a delivery, which every attempt of it carries as its `webhook-id`."""
    return _derived(f"delivery/{response_id}/{webhook_id}")


def new_id(prefix: str) -> str:
    """Make a random id with a prefix that says what it names: `ch_…`, `wh_…`. Letters and digits only."""
    return f"{prefix}_{secrets.token_hex(10)}"


def new_token(prefix: str = "") -> str:
    """Make a random token with 256 bits, safe in URLs and headers."""
    return prefix + secrets.token_urlsafe(32)


def token_hash(token: str) -> str:
    """Hash an access token for keeping. Its 256 random bits need no salt and no slow hash."""
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).hexdigest()


def new_webhook_secret() -> str:
    """Make a signing secret as Standard Webhooks writes it: `whsec_` and 32 random bytes in base64."""
    return "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode()


def _derived(name: str) -> str:
    # A UUID of version 5 (RFC 9562, section 5.5).
    made = _BEGUN.copy()
    made.update(name.encode())
    return _uuid(made.digest()[:16], 5)


#: The digit of a UUID that holds its variant, by the digit that was there (RFC 9562, section 4.1).
_VARIANT = {digit: "89ab"[int(digit, 16) & 3] for digit in "0123456789abcdef"}


def _uuid(octets: bytes, version: int) -> str:
    # A quarter of what the standard library takes for it.
    text = octets.hex()
    return f"{text[:8]}-{text[8:12]}-{version}{text[13:16]}-{_VARIANT[text[16]]}{text[17:20]}-{text[20:]}"
