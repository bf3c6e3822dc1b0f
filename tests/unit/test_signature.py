"""Signatures, checked by the library of Standard Webhooks."""

import base64
import time
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks.webhooks import Webhook as Oracle

from broker.signature import sign, verify

SECRETS = st.binary(min_size=24, max_size=64).map(lambda key: "whsec_" + base64.b64encode(key).decode())
IDS = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=40)


def headers(secrets: list[str], webhook_id: str, timestamp: int, body: bytes) -> dict[str, str]:
    return {
        "webhook-id": webhook_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": sign(secrets, webhook_id, timestamp, body),
    }


@given(secret=SECRETS, webhook_id=IDS, timestamp=st.integers(0, 4_000_000_000), text=st.text())
def test_we_sign_as_the_library_does(secret: str, webhook_id: str, timestamp: int, text: str) -> None:
    theirs = Oracle(secret).sign(webhook_id, datetime.fromtimestamp(timestamp, UTC), text)
    assert sign([secret], webhook_id, timestamp, text.encode()) == theirs


@given(secrets=st.lists(SECRETS, min_size=1, max_size=2), body=st.binary())
def test_each_secret_is_enough_to_verify_and_any_change_is_noticed(secrets: list[str], body: bytes) -> None:
    now = time.time()
    given_headers = headers(secrets, "id-1", int(now), body)
    for secret in secrets:
        assert verify([secret], given_headers, body, now=now) is None
    assert verify(secrets, given_headers, body + b"x", now=now) is not None
    assert verify(secrets, {**given_headers, "webhook-id": "id-2"}, body, now=now) is not None
    assert (
        verify(secrets, {**given_headers, "webhook-timestamp": str(int(now) + 1)}, body, now=now) is not None
    )


def test_old_and_future_timestamps_are_refused() -> None:
    secret = "whsec_" + "A" * 32
    for off in (-301, 301):
        refused = verify([secret], headers([secret], "id", 1000, b""), b"", now=1000 + off)
        assert refused is not None
        assert "300 s" in refused
    assert verify([secret], headers([secret], "id", 1000, b""), b"", now=1299) is None


@given(st.dictionaries(st.sampled_from(["webhook-id", "webhook-timestamp", "webhook-signature"]), st.text()))
def test_rubbish_headers_are_refused_and_never_an_exception(rubbish: dict[str, str]) -> None:
    assert verify(["whsec_" + "A" * 32], rubbish, b"body", now=0) is not None


@pytest.mark.parametrize("secret", ["whsec_!!!", "whsec_", "", "whsec_ключ"])
def test_a_secret_that_is_none_is_told(secret: str) -> None:
    # Everybody could sign with an empty key.
    with pytest.raises(ValueError, match="whsec_"):
        sign([secret], "id", 0, b"")
    forged = headers(["whsec_" + "A" * 32], "id", 1000, b"")
    with pytest.raises(ValueError, match="whsec_"):
        verify([secret], forged, b"", now=1000)


@pytest.mark.parametrize("name", ["webhook-id", "webhook-signature", "webhook-timestamp"])
@pytest.mark.parametrize("odd", ["\udcff", "v1,\udcff=", "ключ", "\x80", "١٢٣"])
def test_headers_that_are_not_ascii_are_refused(name: str, odd: str) -> None:
    secret = "whsec_" + "A" * 32
    good = headers([secret], "id", 1000, b"")
    assert verify([secret], {**good, name: odd}, b"", now=1000) is not None
