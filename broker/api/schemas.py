"""What administration and health show, camelCase in JSON."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel

from broker.registry import records
from broker.registry.records import JsonObject


class Shape(BaseModel):
    """A JSON object of the API."""

    # Built at the first use, since there are many, and most processes show none of them.
    model_config = ConfigDict(
        alias_generator=to_camel, validate_by_name=True, validate_by_alias=True, defer_build=True
    )


class Accepted(Shape):
    """The message is on the queue, under this id."""

    message: str
    id: str


class Channel(Shape):
    """A chat channel by which a bot is reached."""

    id: str
    name: str
    bot: JsonObject
    verify_token: str
    #: What its webhooks do that set nothing of their own; None for the default.
    retry_schedule: list[float] | None
    time_to_live_seconds: float | None
    created_at: datetime

    @classmethod
    def of(cls, channel: records.Channel) -> "Channel":
        """Show a channel, without its access token, of which only the hash is known."""
        return cls(
            id=channel.id,
            name=channel.name,
            bot=channel.bot,
            verify_token=channel.verify_token,
            retry_schedule=None if channel.retry_schedule is None else list(channel.retry_schedule),
            time_to_live_seconds=channel.time_to_live_s,
            created_at=channel.created_at,
        )


class CreatedChannel(Channel):
    """A new channel, with its access token, which is shown only here."""

    access_token: str


class Webhook(Shape):
    """A registered URL."""

    id: str
    channel_id: str
    url: str
    #: None where it sends the channel's.
    verify_token: str | None
    events: list[str]
    headers: dict[str, str]
    timeout_seconds: float | None
    retry_schedule: list[float] | None
    time_to_live_seconds: float | None
    rate_limit: float | None
    enabled: bool
    disabled_reason: str | None
    #: Since when it has done nothing but fail; after five days of that it is disabled.
    failing_since: datetime | None
    previous_secret_until: datetime | None
    #: When it is deleted, unless that is put off before; None is never.
    expires_at: datetime | None
    created_at: datetime

    @classmethod
    def of(cls, webhook: records.Webhook) -> "Webhook":
        """Show a webhook, without its secrets."""
        return cls(**_public(webhook))


class CreatedWebhook(Webhook):
    """A new webhook, with the secret that signs its deliveries, which is shown only here."""

    secret: str

    @classmethod
    def of(cls, webhook: records.Webhook) -> "CreatedWebhook":
        """Show a new webhook with its secret."""
        return cls(secret=webhook.secret, **_public(webhook))


def _public(webhook: records.Webhook) -> dict[str, Any]:
    return {
        "id": webhook.id,
        "channel_id": webhook.channel_id,
        "url": webhook.url,
        "verify_token": webhook.verify_token,
        "events": list(webhook.events),
        "headers": dict(webhook.headers),
        "timeout_seconds": webhook.timeout_s,
        "retry_schedule": None if webhook.retry_schedule is None else list(webhook.retry_schedule),
        "time_to_live_seconds": webhook.time_to_live_s,
        "rate_limit": webhook.rate_limit,
        "failing_since": webhook.failing_since,
        "enabled": webhook.enabled,
        "disabled_reason": webhook.disabled_reason,
        "previous_secret_until": webhook.previous_secret_until,
        "expires_at": webhook.expires_at,
        "created_at": webhook.created_at,
    }


class RotatedSecret(Shape):
    """The new secret, shown only here; the old one signs too until then."""

    secret: str
    previous_secret_until: datetime | None


class PingOutcome(Shape):
    """What came of a test of a webhook."""

    delivered: bool
    status_code: int | None
    error: str | None
    detail: str
    duration_ms: int
    answer: str


class Health(Shape):
    """This process lives."""

    status: Literal["ok"] = "ok"
    version: str


class Readiness(Shape):
    """What this process needs, and whether it answers."""

    status: Literal["ready"] = "ready"
    checks: dict[str, str]


class Listing(Shape):
    """A page of a listing; `nextCursor` gets the one after it, and is null on the last."""

    items: Sequence[Any]
    next_cursor: str | None


class ChannelList(Listing):
    """Channels, newest first."""

    items: Sequence[Channel]


class WebhookList(Listing):
    """Webhooks of a channel, newest first."""

    items: Sequence[Webhook]
