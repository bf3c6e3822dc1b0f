"""One attempt: one signed POST to one webhook, and what came of it, as a value.

A 2xx counts when its status line arrives; the body of the answer is not waited for long, since nothing depends
on it. What breaks HTTP in one piece with its status line is no answer. Redirects are not followed: whoever moved
an endpoint registers the new URL.
"""

import asyncio
import socket
import ssl
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import lru_cache
from typing import Any

import aiohttp
from aiohttp.typedefs import LooseHeaders

from broker import __version__
from broker.addresses import refusal
from broker.models.outbound import webhook_body
from broker.models.records import BotResponse
from broker.registry.records import Attempt, Channel, Webhook
from broker.settings import Network
from broker.signature import sign
from broker.trace import child
from consumers.retry import Answer

USER_AGENT = f"Postbote/{__version__}"
#: Of the answer's body this much is kept, in bytes.
KEPT_ANSWER = 4096
#: How long to wait for the body of an answer whose status line is here, in seconds.
ANSWER_BODY_S = 2.0


class AddressRefused(OSError):
    """The webhook's host has an address that deliveries must not reach."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of an attempt: the record of it, and how long the receiver asked us to wait."""

    attempt: Attempt
    retry_after_s: float | None
    #: How long the body of the answer was waited for, after the status line that settled the matter, in seconds.
    body_s: float = 0.0

    @property
    def answer(self) -> Answer:
        """The part that the retry policy decides by."""
        return Answer(self.attempt.status_code, self.retry_after_s)


class Poster:
    """Posts responses to webhooks over one pool of connections. One object for a process; close it at the end."""

    def __init__(self, *, timeout_s: float, allowed: Sequence[Network]) -> None:
        self._timeout_s = timeout_s
        self._allowed = allowed
        self._client = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                # The gates bound the attempts in flight; a second bound here would let those that hang starve others.
                limit=0,
                ttl_dns_cache=30,
                socket_factory=self._open_socket,
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            requote_redirect_url=False,
            skip_auto_headers=("Accept-Encoding",),
            headers={"User-Agent": USER_AGENT, "Content-Type": "application/json", "Accept": "*/*"},
        )

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()

    async def post(
        self, channel: Channel, webhook: Webhook, response: BotResponse, delivery_id: str, number: int
    ) -> Outcome:
        """Make the `number`-th attempt (from 1) of a delivery. Never raises for anything that the endpoint does."""
        body = webhook_body(response, webhook.verify_token or channel.verify_token)
        started_at = datetime.now(UTC)
        headers = delivery_headers(webhook, response, delivery_id, body, started_at)
        clock = time.perf_counter()
        status_code, error, detail, answer, retry_after, body_s = None, None, "", "", None, 0.0
        try:
            async with self._client.post(
                webhook.url,
                # As the library would make it of plain bytes, once it has looked through what else it might be.
                data=aiohttp.BytesPayload(body, content_type="application/json"),
                headers=headers,
                allow_redirects=False,
                timeout=_timeout(webhook.timeout_s or self._timeout_s),
            ) as got:
                status_code = got.status
                duration = time.perf_counter() - clock
                if "Retry-After" in got.headers:
                    retry_after = retry_after_s(got.headers["Retry-After"], datetime.now(UTC))
                if not got.content.at_eof():
                    answer = await _beginning(got)
                    body_s = time.perf_counter() - clock - duration
        except (aiohttp.ClientError, OSError, ValueError, asyncio.InvalidStateError) as failure:
            duration = time.perf_counter() - clock
            if status_code is None:
                error, detail = describe(failure)
        return Outcome(
            Attempt(number, started_at, round(duration * 1000), status_code, error, detail, answer),
            retry_after,
            body_s,
        )

    def _open_socket(self, address: tuple[Any, ...]) -> socket.socket:
        # Called for each connection after the name is resolved, so a name that points inside is refused too, also
        # one that pointed elsewhere when the webhook was registered.
        family, kind, protocol, _, where = address
        why = refusal(where[0], self._allowed)
        if why is not None:
            raise AddressRefused(
                f"{where[0]} is {why}; deliveries go to public addresses only. To allow it, add its network to "
                "POSTBOTE_WEBHOOK_ALLOW_NETWORKS"
            )
        opened = socket.socket(family, kind, protocol)
        opened.setblocking(False)
        return opened


@lru_cache(maxsize=1024)
def _timeout(seconds: float) -> aiohttp.ClientTimeout:
    return aiohttp.ClientTimeout(total=seconds)


def delivery_headers(
    webhook: Webhook, response: BotResponse, delivery_id: str, body: bytes, at: datetime
) -> LooseHeaders:
    """Write the headers of one attempt: signed anew, with its own timestamp and the delivery's lasting id.

    As Standard Webhooks 1.0 has them; the W3C trace context goes on from the user's message.
    """
    secrets = [webhook.secret]
    if webhook.previous_secret and webhook.previous_secret_until and at < webhook.previous_secret_until:
        secrets.append(webhook.previous_secret)
    timestamp = int(at.timestamp())
    headers: dict[str, str] = {
        **webhook.headers,
        "webhook-id": delivery_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": sign(secrets, delivery_id, timestamp, body),
        "postbote-in-reply-to": response.in_reply_to,
        "postbote-turn": f"{response.index}/{response.count}",
    }
    if response.traceparent is not None:
        headers["traceparent"] = child(response.traceparent)
    return headers


async def _beginning(answer: aiohttp.ClientResponse) -> str:
    """Read the beginning of an answer's body; the connection is kept only where the body ends soon."""
    kept = b""
    try:
        async with asyncio.timeout(ANSWER_BODY_S):
            while len(kept) < KEPT_ANSWER:
                piece = await answer.content.read(KEPT_ANSWER - len(kept))
                if not piece:
                    break
                kept += piece
    except (TimeoutError, aiohttp.ClientError, OSError):
        # The status line is what counts. Leaving the context closes a connection that has more to read.
        answer.close()
    if not answer.content.at_eof():
        answer.close()
    return kept.decode("utf-8", "replace").replace("\x00", "\N{REPLACEMENT CHARACTER}")


def describe(failure: BaseException) -> tuple[str, str]:
    """Say which kind of failure kept an answer from coming, and what it was in words."""
    cause: BaseException | None = failure
    while cause is not None:
        if isinstance(cause, AddressRefused):
            return "refused_address", str(cause)
        cause = cause.__cause__ or cause.__context__
    detail = str(failure) or type(failure).__name__
    match failure:
        case TimeoutError():
            return "timeout", "no answer in time"
        case aiohttp.ClientConnectorDNSError() | socket.gaierror():
            return "dns", detail
        case aiohttp.ClientSSLError() | ssl.SSLError() | aiohttp.ClientConnectorCertificateError():
            return "tls", detail
        case aiohttp.InvalidURL() | aiohttp.NonHttpUrlClientError():
            return "invalid_url", detail
        case aiohttp.ClientPayloadError() | aiohttp.ClientResponseError() | aiohttp.ServerDisconnectedError():
            return "broken_answer", detail
        case ValueError():
            return "invalid_url", detail
        case _:
            return "connection", detail


def retry_after_s(value: str | None, at: datetime) -> float | None:
    """Read a Retry-After header: seconds, or an HTTP date (RFC 9110, section 10.2.3); None where it is neither."""
    if value is None:
        return None
    value = value.strip()
    if value.isascii() and value.isdigit():
        return float(value[:9])
    try:
        moment = parsedate_to_datetime(value)
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max(0.0, (moment - at).total_seconds())


def ping(channel: Channel) -> BotResponse:
    """Make the response that tests a webhook: an event, which receivers do not show to users."""
    return BotResponse(
        id="00000000-0000-0000-0000-000000000000",
        channel_id=channel.id,
        user_id="postbote-test",
        in_reply_to="00000000-0000-0000-0000-000000000000",
        index=1,
        count=1,
        message_counter=1,
        kind="event",
        message={"type": "event", "name": "webhook.test"},
    )
