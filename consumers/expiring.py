"""Expiring: looks now and then for what waits for disabled webhooks and has outlived its time to live.

And for webhooks that were registered for a time, and whose owner has not put off their end.
"""

from datetime import datetime, timedelta
from typing import Protocol

import structlog

from broker.errors import RegistryUnavailable
from broker.models.records import now
from broker.registry.expiry import Dormant
from consumers.retry import Policy
from consumers.serving import Stop

log = structlog.get_logger()

#: How often to look, in seconds: nobody waits for it.
LOOK_S = 30.0
#: How often to look for webhooks that have expired, in seconds, and how many are deleted then.
LOOK_AT_WEBHOOKS_S, A_LOOK = 5.0, 100


class ExpiryStore(Protocol):
    """Where the backlogs of disabled webhooks are kept."""

    async def dormant(self) -> list[Dormant]:
        """Return the disabled webhooks that have a backlog."""
        ...

    async def expire(self, webhook_id: str, before: datetime, reason: str) -> int:
        """Expire some of what a webhook has waiting since before then; returns how many lanes that touched."""
        ...


class Sweeper:
    """Expires what nobody drains. `run` is its one task."""

    def __init__(self, store: ExpiryStore, policy: Policy) -> None:
        self._store = store
        self._policy = policy

    async def run(self, stop: Stop) -> None:
        """Sweep until told to stop."""
        while not stop.is_set():
            try:
                await self.sweep(stop)
            except RegistryUnavailable:
                pass
            except Exception:
                log.exception("backlog.not_expired")
            await stop.sleep(LOOK_S)

    async def sweep(self, stop: Stop) -> None:
        """Expire what there is now, in pieces."""
        for dormant in await self._store.dormant():
            lives = dormant.time_to_live_s
            seconds = self._policy.time_to_live_s if lives is None else lives
            reason = f"not delivered within its time to live of {seconds:g} s; the webhook was disabled"
            before = now() - timedelta(seconds=seconds)
            while not stop.is_set() and await self._store.expire(dormant.webhook_id, before, reason):
                pass


class ExpiringWebhooks(Protocol):
    """Where webhooks are kept."""

    async def delete_expired(self, limit: int) -> list[str]:
        """Delete up to `limit` webhooks that have expired, and return their ids."""
        ...


class WebhookSweeper:
    """Deletes webhooks that have expired; what waits for them is given up like that of any deleted one."""

    def __init__(self, store: ExpiringWebhooks) -> None:
        self._store = store

    async def run(self, stop: Stop) -> None:
        """Sweep until told to stop."""
        while not stop.is_set():
            try:
                for webhook_id in await self._store.delete_expired(A_LOOK):
                    log.info("webhook.expired", webhook=webhook_id)
            except RegistryUnavailable:
                pass
            except Exception:
                log.exception("webhook.not_expired")
            await stop.sleep(LOOK_AT_WEBHOOKS_S)
