"""The standing of webhooks: since when each has done nothing but fail, and what follows from it.

Kept in the registry, so that five days of failing count over restarts and for all workers together. Written in
the background: no delivery waits for it.
"""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from typing import Protocol

import structlog

from broker.errors import RegistryUnavailable
from broker.models.records import now
from broker.registry.records import Webhook
from consumers.breaker import Change
from consumers.directory import Directory
from consumers.serving import Stop

log = structlog.get_logger()

#: A webhook that fails for less than this is not worth a write, in seconds.
WORTH_A_WRITE_S = 60.0
#: How long to wait after the database did not answer, in seconds.
PAUSE_S = 1.0


class StandingStore(Protocol):
    """Where the standing of webhooks is kept."""

    async def note_failing(self, webhook_id: str, since: datetime) -> None:
        """Write since when a webhook has done nothing but fail, where that is not written yet."""
        ...

    async def note_delivered(self, webhook_id: str) -> None:
        """Write that it does not only fail."""
        ...


class Waking(Protocol):
    """Wakes what waits in the backlog."""

    async def wake(self, webhook_id: str) -> None:
        """Make all lanes of a webhook due now."""
        ...


class Disabling(Protocol):
    """Disables webhooks."""

    async def disable(self, webhook: Webhook, reason: str) -> None:
        """Disable a webhook, saying why."""
        ...


class Standing:
    """Notes how attempts went. `note` never blocks; `run` is the one task that writes."""

    def __init__(
        self,
        store: StandingStore,
        backlog: Waking,
        disabling: Disabling,
        directory: Directory,
        disable_after: timedelta,
        clock: Callable[[], datetime] = now,
    ) -> None:
        self._store = store
        self._backlog = backlog
        self._disabling = disabling
        self._directory = directory
        self._disable_after = disable_after
        self._clock = clock
        #: Webhooks that fail, each with the moment of the first failure after the last success here.
        self._failing: dict[str, datetime] = {}
        #: What is to be done, one of each kind for a webhook.
        self._due: dict[tuple[str, str], Callable[[], Awaitable[None]]] = {}
        self._some = asyncio.Event()

    def note(self, webhook: Webhook, *, delivered: bool, change: Change | None) -> None:
        """Note how an attempt went, and what the webhook's breaker made of it."""
        if delivered:
            self._failing.pop(webhook.id, None)
            if webhook.failing_since is not None:
                self._add(webhook, "standing", lambda: self._store.note_delivered(webhook.id))
        else:
            self._note_failure(webhook)
        if change is not None:
            log.warning(f"webhook.{change}", webhook=webhook.id, channel=webhook.channel_id)
        if change == "closed":
            self._add(webhook, "waking", lambda: self._backlog.wake(webhook.id))

    async def run(self, stop: Stop) -> None:
        """Write until told to stop. What is not written then is found out again by the next attempts."""
        while not stop.is_set():
            await self._work_until(stop)
            if not self._due:
                self._some.clear()
                await stop.sleep_until(self._some)

    async def _work_until(self, stop: Stop) -> None:
        while self._due and not stop.is_set():
            key = next(iter(self._due))
            work = self._due.pop(key)
            try:
                await work()
            except RegistryUnavailable:
                self._due.setdefault(key, work)
                await stop.sleep(PAUSE_S)
            except Exception:
                log.exception("standing.not_written", webhook=key[0])

    def _note_failure(self, webhook: Webhook) -> None:
        at = self._clock()
        since = self._failing.setdefault(webhook.id, at)
        written = webhook.failing_since
        if written is None:
            if at - since > timedelta(seconds=WORTH_A_WRITE_S):
                # Not the moment of the first failure here: another worker may have delivered since then.
                self._add(webhook, "standing", lambda: self._store.note_failing(webhook.id, at))
        elif webhook.enabled and at - written > self._disable_after:
            days = self._disable_after / timedelta(days=1)
            reason = f"nothing but failures for {days:g} days, since {written:%Y-%m-%d %H:%M} UTC"
            self._add(webhook, "standing", lambda: self._disabling.disable(webhook, reason))

    def _add(self, webhook: Webhook, kind: str, work: Callable[[], Awaitable[None]]) -> None:
        async def do() -> None:
            await work()
            self._directory.forget(webhook.channel_id)

        self._due[(webhook.id, kind)] = do
        self._some.set()
