"""One attempt: one signed POST to one webhook, and what came of it, as a value.

A 2xx counts when its status line arrives; the rest of the answer is not waited for long, since nothing depends
on it. Redirects are not followed: whoever moved an endpoint registers the new URL.

An attempt always ends as an outcome. One that raised would take with it the session of its partition, and so the
deliveries of others; it would be made again at once, without a record, for ever.
"""

import asyncio
import ssl
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import structlog

from broker.models.records import BotResponse
from broker.registry.records import Attempt, Channel, Webhook
from broker.settings import Network
from consumers.http.connection import Answer as HttpAnswer
from consumers.http.connection import BrokenAnswer
from consumers.http.opening import AddressRefused, NameNotResolved
from consumers.http.pool import Pool
from consumers.request import Requests, request
from consumers.retry import Answer

log = structlog.get_logger()

#: Longer than any date of HTTP; what is longer is not looked at.
_LONGEST_DATE = 64


@dataclass(slots=True)
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
        self._pool = Pool(allowed)
        self._requests = Requests()

    async def close(self) -> None:
        """Close the connections."""
        await self._pool.close()

    async def post(
        self, channel: Channel, webhook: Webhook, response: BotResponse, delivery_id: str, number: int
    ) -> Outcome:
        """Make the `number`-th attempt (from 1) of a delivery. Raises nothing but the end of its task."""
        started_at = datetime.now(UTC)
        clock = time.perf_counter()
        try:
            verify_token = webhook.verify_token or channel.verify_token
            try:
                fixed = self._requests.fixed(webhook)
            except ValueError as failure:
                return _failed(number, started_at, clock, "invalid_url", str(failure))
            asked = request(fixed, response, verify_token, delivery_id, started_at)
            try:
                answer = await self._pool.exchange(fixed.origin, asked, webhook.timeout_s or self._timeout_s)
            except (BrokenAnswer, OSError, ValueError) as failure:
                return _failed(number, started_at, clock, *describe(failure))
            return _answered(number, started_at, clock, answer)
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            # A library's way to tell that something of its own has ended.
            return _unexpected(number, started_at, clock, webhook, error)
        except Exception as error:
            return _unexpected(number, started_at, clock, webhook, error)


def _answered(number: int, started_at: datetime, clock: float, answer: HttpAnswer) -> Outcome:
    duration = answer.headed_at - clock
    retry_after = None
    if answer.retry_after is not None:
        retry_after = retry_after_s(answer.retry_after, datetime.now(UTC))
    return Outcome(
        Attempt(
            number,
            started_at,
            round(duration * 1000),
            answer.status,
            None,
            "",
            _text(answer.beginning) if answer.beginning else "",
        ),
        retry_after,
        answer.ended_at - answer.headed_at,
    )


def _failed(number: int, started_at: datetime, clock: float, error: str, detail: str) -> Outcome:
    duration = time.perf_counter() - clock
    return Outcome(Attempt(number, started_at, round(duration * 1000), None, error, detail), None)


def _unexpected(
    number: int, started_at: datetime, clock: float, webhook: Webhook, error: BaseException
) -> Outcome:
    log.error("attempt.failed_unexpectedly", webhook=webhook.id, exc_info=error)
    # Its text may hold anything: the log is for those who run this, the record for the webhook's owner.
    detail = f"Postbote could not make this attempt ({type(error).__name__}); its log says why"
    return _failed(number, started_at, clock, "unexpected", detail)


def _text(beginning: bytes) -> str:
    # No database takes U+0000 in a text.
    return beginning.decode("utf-8", "replace").replace("\x00", "\N{REPLACEMENT CHARACTER}")


def describe(failure: BaseException) -> tuple[str, str]:
    """Say which kind of failure kept an answer from coming, and what it was in words."""
    detail = str(failure) or type(failure).__name__
    match failure:
        case TimeoutError():
            return "timeout", "no answer in time"
        case AddressRefused():
            return "refused_address", detail
        case NameNotResolved():
            return "dns", detail
        case ssl.SSLError():
            return "tls", detail
        case BrokenAnswer():
            return "broken_answer", detail
        case ValueError():
            # A host that TLS or the name service has no form for.
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
    if len(value) > _LONGEST_DATE:
        return None
    try:
        moment = parsedate_to_datetime(value)
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        return max(0.0, (moment - at).total_seconds())
    except (ValueError, TypeError, LookupError, ArithmeticError):
        # The standard library's reader raises each of them for some text that is no date.
        return None


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
