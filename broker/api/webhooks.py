"""Administration of webhooks."""

from datetime import datetime, timedelta
from typing import Annotated, Any

from aiohttp import web
from pydantic import Field

from broker.api.answers import Created, NoContent, Ok
from broker.api.endpoint import AdminEndpoint, answer
from broker.api.forms import ALL_RESPONSES, WebhookCreation, WebhookPatch, renamed
from broker.api.pages import DEFAULT_LIMIT, Cursor, Limit, answer_page
from broker.api.parts import NEWS
from broker.api.problems import Problem, fault, not_found
from broker.api.schemas import (
    CreatedWebhook,
    PingOutcome,
    RotatedSecret,
    Webhook,
    WebhookList,
)
from broker.api.webhook_fields import refused_target
from broker.errors import ChannelFull, TooManySecrets
from broker.models.inbound import ChannelId
from broker.models.records import now
from broker.settings import Network

WebhookId = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")]

#: A test takes as long as an attempt may, in seconds.
LONGEST_PING_S = 70.0
#: How long the old secret signs too after a rotation, so that a receiver changes over without a gap.
OVERLAP = timedelta(hours=24)


class ChannelWebhooksView(AdminEndpoint):
    """The webhooks of a channel."""

    async def get(
        self, channel_id: ChannelId, /, limit: Limit = DEFAULT_LIMIT, cursor: Cursor | None = None
    ) -> Ok[WebhookList]:
        """List a channel's webhooks, newest first.

        Tags: webhooks
        Security: admin
        """
        if await self.parts.channels.get(channel_id) is None:
            raise not_found("channel")
        return await answer_page(
            WebhookList, cursor, self.parts.webhooks.page(channel_id, cursor, limit), Webhook.of
        )

    async def post(self, channel_id: ChannelId, /, body: WebhookCreation) -> Created[CreatedWebhook]:
        """Register a webhook.

        The secret, which signs deliveries as Standard Webhooks has it, is shown in this answer only.

        Tags: webhooks
        Security: admin
        Status Codes:
            201: The webhook, with its secret.
            409: The channel has as many webhooks as it may have.
        """
        check_target(body.url, self.parts.allowed_networks)
        most = self.parts.settings.max_webhooks_per_channel
        try:
            webhook = await self.parts.webhooks.create(
                channel_id,
                url=body.url,
                verify_token=body.verify_token,
                events=body.events,
                headers=body.headers,
                timeout_s=body.timeout_seconds,
                retry_schedule=body.retry_schedule,
                time_to_live_s=body.time_to_live_seconds,
                rate_limit=body.rate_limit,
                expires_at=after(body.expires_in_seconds),
                enabled=body.enabled,
                most=most,
            )
        except ChannelFull:
            raise Problem(
                409,
                f"A channel has at most {most} webhooks; delete one first, or set POSTBOTE_MAX_WEBHOOKS_PER_CHANNEL.",
            ) from None
        if webhook is None:
            raise not_found("channel")
        self.request.app[NEWS].changed(channel_id)
        location = {"Location": f"/v1/webhooks/{webhook.id}"}
        return answer(CreatedWebhook.of(webhook), status=201, headers=location)


class WebhookView(AdminEndpoint):
    """One webhook."""

    async def get(self, webhook_id: WebhookId, /) -> Ok[Webhook]:
        """Show a webhook, without its secret.

        Tags: webhooks
        Security: admin
        """
        webhook = await self.parts.webhooks.get(webhook_id)
        if webhook is None:
            raise not_found("webhook")
        return answer(Webhook.of(webhook))

    async def patch(self, webhook_id: WebhookId, /, body: WebhookPatch) -> Ok[Webhook]:
        """Change a webhook; what is absent stays, null brings back the default.

        Enabling clears disabledReason and failingSince. What waits is due at once then, and after a change of
        the URL or of the rate limit.

        Tags: webhooks
        Security: admin
        """
        if body.url is not None:
            check_target(body.url, self.parts.allowed_networks)
        changes = changes_of(body)
        if set(changes) == {"expires_at"}:
            webhook = await self.parts.webhooks.renew(webhook_id, changes["expires_at"])
        else:
            webhook = await self.parts.webhooks.update(webhook_id, changes)
        if webhook is None:
            raise not_found("webhook")
        if set(changes) != {"expires_at"}:
            self.request.app[NEWS].changed(webhook.channel_id)
        return answer(Webhook.of(webhook))

    async def delete(self, webhook_id: WebhookId, /) -> NoContent:
        """Delete a webhook; what waits for it is given up.

        Tags: webhooks
        Security: admin
        Status Codes:
            204: It is deleted.
        """
        channel_id = await self.parts.webhooks.delete(webhook_id)
        if channel_id is None:
            raise not_found("webhook")
        self.request.app[NEWS].changed(channel_id)
        return web.Response(status=204)


class WebhookTestView(AdminEndpoint):
    """Tests of a webhook."""

    async def post(self, webhook_id: WebhookId, /) -> Ok[PingOutcome]:
        """Send a signed test event to a webhook now, and tell what came of it.

        The event is a message object of type "event", which receivers do not show to users. A disabled
        webhook is tested too, so that it can be tried before it is enabled.

        Tags: webhooks
        Security: admin
        """
        webhook = await self.parts.webhooks.get(webhook_id)
        channel = await self.parts.channels.get(webhook.channel_id) if webhook is not None else None
        if webhook is None or channel is None:
            raise not_found("webhook")
        if self.parts.ping is None:
            raise Problem(501, "This process makes no deliveries; ask one that does.")
        self.take_time(LONGEST_PING_S)
        attempt = await self.parts.ping(channel, webhook)
        return answer(
            PingOutcome(
                delivered=attempt.status_code is not None and 200 <= attempt.status_code < 300,
                status_code=attempt.status_code,
                error=attempt.error,
                detail=attempt.detail,
                duration_ms=attempt.duration_ms,
                answer=attempt.answer,
            )
        )


class WebhookSecretView(AdminEndpoint):
    """The secret of a webhook."""

    async def post(self, webhook_id: WebhookId, /) -> Ok[RotatedSecret]:
        """Give a webhook a new secret; the old one signs too for 24 hours, also where others follow.

        Tags: webhooks
        Security: admin
        Status Codes:
            200: The new secret.
            409: So many secrets sign already that one more would end another before its time.
        """
        try:
            webhook = await self.parts.webhooks.rotate_secret(webhook_id, overlap=OVERLAP)
        except TooManySecrets as error:
            raise Problem(409, str(error)) from error
        if webhook is None:
            raise not_found("webhook")
        self.request.app[NEWS].changed(webhook.channel_id)
        return answer(
            RotatedSecret(secret=webhook.secret, previous_secret_until=webhook.previous_secret_until)
        )


def check_target(url: str, allowed: tuple[Network, ...]) -> None:
    """Return where deliveries may go to a URL, as far as it can be told now; raises Problem 422 otherwise."""
    why = refused_target(url, allowed)
    if why is not None:
        raise Problem(
            422,
            "The body is not as it has to be; `errors` says where.",
            errors=[fault("body", ("url",), why, "refused_address")],
        )


def after(seconds: float | None) -> datetime | None:
    """Return the moment in so many seconds; None is never."""
    return None if seconds is None else now() + timedelta(seconds=seconds)


def changes_of(body: WebhookPatch) -> dict[str, Any]:
    """Name what a patch changes, as the registry has it; null is the default of the field."""
    changes = renamed(body.model_dump(exclude_unset=True))
    if "expires_in_seconds" in changes:
        changes["expires_at"] = after(changes.pop("expires_in_seconds"))
    for field, default in (("events", list(ALL_RESPONSES)), ("headers", {})):
        if field in changes and changes[field] is None:
            changes[field] = default
    return changes
