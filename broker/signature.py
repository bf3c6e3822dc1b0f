"""Signatures of webhooks, as Standard Webhooks 1.0 has them: HMAC-SHA256 over id, timestamp and body."""

import base64
import binascii
import hmac
from collections.abc import Mapping, Sequence
from functools import lru_cache

#: A receiver refuses timestamps further off than this, in seconds, so that nobody can replay an old delivery.
TOLERANCE_S = 300
PREFIX = "whsec_"


@lru_cache(maxsize=65_536)
def _key(secret: str) -> bytes:
    try:
        key = base64.b64decode(secret.removeprefix(PREFIX), validate=True)
    except (binascii.Error, ValueError) as error:
        raise ValueError("a webhook secret is whsec_ and base64") from error
    if not key:
        # Everybody could sign with it.
        raise ValueError("a webhook secret is whsec_ and base64 of at least one byte")
    return key


def sign(secrets: Sequence[str], webhook_id: str, timestamp: int, body: bytes) -> str:
    """Write the value of `webhook-signature`: one signature for each secret, with spaces between.

    Raises ValueError for a secret that is none.
    """
    signed = f"{webhook_id}.{timestamp}.".encode() + body
    return " ".join(
        "v1," + base64.b64encode(hmac.digest(_key(secret), signed, "sha256")).decode() for secret in secrets
    )


def verify(
    secrets: Sequence[str],
    headers: Mapping[str, str],
    body: bytes,
    *,
    now: float,
    tolerance_s: float = TOLERANCE_S,
) -> str | None:
    """Check a delivery as its receiver would; returns why it is to be refused, or None where it is good.

    `headers` are looked up in small letters; `now` is in seconds since 1970. Whatever the headers hold is a
    reason and never an exception; only a secret that is none raises ValueError.
    """
    webhook_id, timestamp, signatures = (
        headers.get(f"webhook-{name}") for name in ("id", "timestamp", "signature")
    )
    if not webhook_id or not timestamp or not signatures:
        return "it has no webhook-id, webhook-timestamp and webhook-signature"
    if not (timestamp.isascii() and timestamp.isdigit() and len(timestamp) < 16):
        return "its timestamp is no number"
    if abs(now - int(timestamp)) > tolerance_s:
        return f"its timestamp is more than {tolerance_s:g} s off"
    if not (webhook_id.isascii() and signatures.isascii()):
        # HTTP servers hand on bytes that are no text as lone surrogates, which cannot be encoded again.
        return "its webhook-id or webhook-signature is not ASCII"
    expected = [sign([secret], webhook_id, int(timestamp), body).encode() for secret in secrets]
    given = [signature.encode() for signature in signatures.split()]
    if any(hmac.compare_digest(one, other) for one in expected for other in given):
        return None
    return "its signature fits none of the secrets"
