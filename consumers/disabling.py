"""Disabling a webhook: what a 410 asks for. Its messages wait in the backlog until someone enables it again."""

from collections.abc import Mapping
from typing import Any, Protocol

import structlog

from broker.registry.records import Webhook
from consumers.directory import Directory
from consumers.outage import outlast

log = structlog.get_logger()


class WebhookStore(Protocol):
    """Where webhooks are kept."""

    async def update(self, webhook_id: str, changes: Mapping[str, Any]) -> Webhook | None:
        """Change a webhook; None where it is deleted."""
        ...


class WebhookDisabling:
    """Disables webhooks in the registry, and makes this process forget what it knew of them."""

    def __init__(self, store: WebhookStore, directory: Directory) -> None:
        self._store = store
        self._directory = directory

    async def disable(self, webhook: Webhook, reason: str) -> None:
        """Disable a webhook, keeping the reason where its owner sees it."""
        log.warning("webhook.disabled", webhook=webhook.id, channel=webhook.channel_id, reason=reason)
        changes = {"enabled": False, "disabled_reason": reason}
        await outlast(lambda: self._store.update(webhook.id, changes), "webhook.disabling")
        self._directory.forget(webhook.channel_id)
