"""What the registry hands out: records that nobody changes, apart from the tables that hold them.

Frozen, but for those of which each delivery takes one: freezing triples what it takes to make them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

JsonObject = dict[str, Any]

#: pending: in the backlog; delivered: answered 2xx; dead: given up; expired: outlived its time to live.
DeliveryStatus = Literal["pending", "delivered", "dead", "expired"]

#: The least `rate_limit`, in deliveries a second: with less than one in 1,000 s a webhook would look broken.
LEAST_RATE_LIMIT = 0.001


@dataclass(frozen=True, slots=True)
class Channel:
    """A chat channel by which a bot is reached. `revision` rises with every change of it or of its webhooks."""

    id: str
    name: str
    bot: JsonObject
    verify_token: str
    revision: int
    created_at: datetime
    #: For its webhooks that set none: seconds between attempts, and for how long an answer is worth delivering.
    retry_schedule: Sequence[float] | None = None
    time_to_live_s: float | None = None


@dataclass(frozen=True, slots=True)
class Webhook:
    """A registered URL with its filter, tokens and secrets."""

    id: str
    channel_id: str
    url: str
    #: Sent in each body; the channel's own where this is None.
    verify_token: str | None
    events: Sequence[str]
    headers: Mapping[str, str]
    secret: str
    #: Signs too, until `previous_secret_until`, so that a receiver can change over without a gap.
    previous_secret: str | None
    previous_secret_until: datetime | None
    enabled: bool
    disabled_reason: str | None
    timeout_s: float | None
    created_at: datetime
    #: Seconds before the second attempt and each later one; the channel's where this is None, else the default.
    retry_schedule: Sequence[float] | None = None
    #: For how long an answer is worth delivering, in seconds; the channel's where this is None, else the default.
    time_to_live_s: float | None = None
    #: Messages a second; None is without limit.
    rate_limit: float | None = None
    #: Since when it has done nothing but fail; None where its last attempt succeeded, or failed just now.
    failing_since: datetime | None = None
    #: Those before the previous one that sign too: each with the moment, as text, until which it does.
    older_secrets: Sequence[Sequence[str]] | None = None

    def secrets(self, at: datetime) -> list[str]:
        """Return the secrets that sign at a moment, the newest first."""
        signing = [self.secret]
        if self.previous_secret and self.previous_secret_until and at < self.previous_secret_until:
            signing.append(self.previous_secret)
        if self.older_secrets:
            signing += [secret for secret, until in self.older_secrets if at < datetime.fromisoformat(until)]
        return signing

    #: When it is deleted, unless that is put off before; None is never.
    expires_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class ChannelWebhooks:
    """A channel with all its webhooks, as of one moment."""

    channel: Channel
    webhooks: Sequence[Webhook]
    _by_id: Mapping[str, Webhook] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_by_id", {webhook.id: webhook for webhook in self.webhooks})

    def webhook(self, webhook_id: str) -> Webhook | None:
        """Return one of the webhooks, or None where it is not there."""
        return self._by_id.get(webhook_id)


@dataclass(frozen=True, slots=True)
class Conversation:
    """What a bot remembers of one user, and how much it has said to them. `turns` is also its version."""

    key: str
    channel_id: str
    user_id: str
    #: A JSON object, as it is written: a bot gets a new one parsed from it.
    session: bytes
    message_counter: int
    turns: int


@dataclass(frozen=True, slots=True)
class Turn:
    """A user's message and what the bot said to it, written before anything is published."""

    message_id: str
    conversation_key: str
    channel_id: str
    number: int
    #: The UserMessage record, as JSON has it.
    message: JsonObject
    #: The BotResponse records, as JSON has them, in order.
    responses: Sequence[JsonObject]
    #: answered: the bot replied, perhaps with nothing; failed: it raised or ran out of time on every try.
    outcome: Literal["answered", "failed"]
    published: bool
    created_at: datetime


@dataclass(slots=True)
class Attempt:
    """One HTTP try of a delivery. `status_code` or `error` says what came of it."""

    number: int
    started_at: datetime
    duration_ms: int
    status_code: int | None
    #: timeout, connection, tls, dns, refused_address, invalid_url, broken_answer, or unexpected, which is a fault of
    #: Postbote's own; None where an answer came.
    error: str | None
    detail: str = ""
    #: The first 4 KiB of the answer.
    answer: str = ""


@dataclass(slots=True)
class Delivery:
    """One response to one webhook, and what became of it."""

    id: str
    webhook_id: str
    channel_id: str
    conversation_key: str
    user_id: str
    response_id: str
    message_counter: int
    status: DeliveryStatus
    reason: str | None
    attempt_count: int
    created_at: datetime
    finished_at: datetime | None
    #: The BotResponse record, as JSON has it; None once it is delivered (the turns keep it).
    response: JsonObject | None = None
    #: All failed attempts, and the one that succeeded.
    attempts: Sequence[Attempt] = field(default_factory=tuple)
    #: A redrive begins the schedule and the time to live anew: the attempts before it, and its moment.
    attempts_before: int = 0
    redriven_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """What cannot be processed, kept whole, with the stage that gave it up and why."""

    id: str
    stage: str
    reason: str
    detail: str
    channel_id: str | None
    routing_key: str
    headers: JsonObject
    body: bytes
    created_at: datetime
    redriven_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class BacklogLane:
    """A lane with pending deliveries, the first of which is due for another attempt at `next_attempt_at`."""

    webhook_id: str
    conversation_key: str
    next_attempt_at: datetime


@dataclass(frozen=True, slots=True)
class Page:
    """A page of a listing; `next_cursor` gets the one after it, and is None on the last."""

    items: Sequence[Any]
    next_cursor: str | None
