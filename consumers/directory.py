"""The directory: which webhooks a channel has, cached so that the delivery worker asks the registry rarely.

Every response carries its channel's revision at the moment when the bot answered. A cached entry of an older
revision is read anew before that response is delivered, so a webhook that was registered before a message was
answered gets the answer, without any worker having to be told. Beside that, entries are refreshed in the
background, so that a changed URL reaches waiting retries; with the database away the cached entry serves on.
"""

import asyncio
import time
from typing import Protocol

from broker.errors import RegistryUnavailable
from broker.registry.records import ChannelWebhooks, Webhook
from consumers.outage import outlast

#: How old an entry may be before it is read anew in the background, in seconds.
FRESH_S = 2.0


class WebhookSource(Protocol):
    """Where webhooks are kept."""

    async def of_channel(self, channel_id: str) -> ChannelWebhooks | None:
        """Return a channel with its webhooks, or None where there is no such channel."""
        ...


class Directory:
    """Answers which webhooks a channel has; one object for a process."""

    def __init__(self, source: WebhookSource) -> None:
        self._source = source
        self._entries: dict[str, tuple[float, ChannelWebhooks]] = {}
        self._reads: dict[str, asyncio.Task[ChannelWebhooks | None]] = {}

    async def of_channel(self, channel_id: str, revision: int = 0) -> ChannelWebhooks | None:
        """Return a channel with its webhooks, at least as new as `revision`; None where it is deleted."""
        known = self.known(channel_id, revision)
        if known is not None:
            return known
        while True:
            found = await outlast(lambda: asyncio.shield(self._read(channel_id)), "delivery.directory")
            # A read that was under way already may have begun before the revision asked for was written.
            if found is None or found.channel.revision >= revision:
                return found

    def known(self, channel_id: str, revision: int = 0) -> ChannelWebhooks | None:
        """Return what `of_channel` does, where that needs no waiting; None otherwise."""
        entry = self._entries.get(channel_id)
        if entry is None or entry[1].channel.revision < revision:
            return None
        if time.monotonic() - entry[0] > FRESH_S:
            self._read(channel_id)
        return entry[1]

    async def webhook(self, channel_id: str, webhook_id: str) -> Webhook | None:
        """Return a webhook as it is now, or None where it or its channel is deleted."""
        entry = await self.of_channel(channel_id)
        if entry is None:
            return None
        return next((webhook for webhook in entry.webhooks if webhook.id == webhook_id), None)

    def forget(self, channel_id: str) -> None:
        """Read a channel anew at the next question."""
        self._entries.pop(channel_id, None)

    async def close(self) -> None:
        """End the reads that are under way."""
        for task in list(self._reads.values()):
            task.cancel()
        await asyncio.gather(*self._reads.values(), return_exceptions=True)

    def _read(self, channel_id: str) -> asyncio.Task[ChannelWebhooks | None]:
        task = self._reads.get(channel_id)
        if task is None:
            task = self._reads[channel_id] = asyncio.create_task(self._read_once(channel_id))
            task.add_done_callback(lambda done: self._read_ended(channel_id, done))
        return task

    async def _read_once(self, channel_id: str) -> ChannelWebhooks | None:
        found = await self._source.of_channel(channel_id)
        if found is None:
            self._entries.pop(channel_id, None)
        else:
            self._entries[channel_id] = (time.monotonic(), found)
        return found

    def _read_ended(self, channel_id: str, task: asyncio.Task[ChannelWebhooks | None]) -> None:
        self._reads.pop(channel_id, None)
        if not task.cancelled() and isinstance(task.exception(), RegistryUnavailable):
            # Whoever waits for it is told by outlast; in the background the old entry simply serves on.
            return
