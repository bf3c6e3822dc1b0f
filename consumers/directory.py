"""The directory: which webhooks a channel has, cached so that the delivery worker asks the registry rarely.

Every response carries its channel's revision at the moment when the bot answered. A cached entry of an older
revision is read anew before that response is delivered, so a webhook that was registered before a message was
answered gets the answer, without any worker having to be told. Beside that, the revisions of entries in use are
looked at in the background, many at a time. What has waited is not tried by an old entry: that is looked at first, so
that a changed URL reaches waiting retries, also where nobody else asked for the channel and no announcement came.
With the database away the cached entry serves on.

A revision above the database's has been lost there, or never was: the database was restored from a dump, or anybody
with the broker's password published it. The database is given a moment to catch up, and then it is right.
"""

import asyncio
import math
import time
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Protocol

import structlog

from broker.batching import Batcher
from broker.errors import RegistryUnavailable
from broker.registry.records import ChannelWebhooks, Webhook
from consumers.outage import outlast

log = structlog.get_logger()

#: How old an entry may be before it is looked at anew, in seconds: for first tries in the background.
FRESH_S = 2.0
#: How long what has waited waits for such a look, in seconds; then the old entry serves.
LOOK_TIMEOUT_S = 1.0
#: For how long nobody waits for a look after one that the database did not answer, in seconds.
AWAY_FOR_S = 5.0
#: How long such a look waits for others, in seconds.
LINGER_S = 0.05
#: Waits between reads of a channel that the database has only in an older revision than a response names, in seconds;
#: a replica is behind by less.
BEHIND_WAITS_S = (0.05, 0.1, 0.2, 0.4)
#: For how long it is known of a channel that such waiting was in vain, in seconds: it is read once each time then.
BEHIND_FOR_S = 60.0
#: Channels of which that is known.
MOST_BEHIND = 10_000
#: Channels kept with their webhooks; the one that was used longest ago goes first.
MOST_CHANNELS = 50_000
#: When an entry was last known to be right that is said to have changed.
CHANGED = -math.inf


class WebhookSource(Protocol):
    """Where webhooks are kept."""

    async def of_channels(self, channel_ids: Iterable[str]) -> Mapping[str, ChannelWebhooks]:
        """Return channels with their webhooks, by their ids; those that are deleted are not in it."""
        ...

    async def revisions(self, channel_ids: Iterable[str]) -> Mapping[str, int]:
        """Return the channels' revisions, by their ids; those that are deleted are not in it."""
        ...


class Directory:
    """Answers which webhooks a channel has; one object for a process. Reads are batched."""

    def __init__(self, source: WebhookSource, *, most: int = MOST_CHANNELS) -> None:
        self._source = source
        self._most = most
        #: With the moment when each was last known to be right: when that was asked.
        self._entries: OrderedDict[str, tuple[float, ChannelWebhooks]] = OrderedDict()
        self._reads: Batcher[str, ChannelWebhooks | None] = Batcher(self._read)
        self._looks: Batcher[str, None] = Batcher(self._look, linger_s=LINGER_S)
        #: The looks that are under way or wait for others, by channel.
        self._looking: dict[str, asyncio.Future[None]] = {}
        #: Until when the database is thought to be away.
        self._away_until = 0.0
        #: Channels whose database was waited for in vain, with the moment until which it is not waited for again.
        self._behind: dict[str, float] = {}
        #: For each question that is with the database, the channels that changed since it was asked.
        self._changed: list[set[str]] = []

    async def of_channel(self, channel_id: str, revision: int = 0) -> ChannelWebhooks | None:
        """Return a channel with its webhooks, at least as new as `revision`; None where it is deleted.

        Older only where the database, waited for, has nothing newer.
        """
        known = self.known(channel_id, revision)
        if known is not None:
            return known
        if self._serves(channel_id, revision):
            # It is said to have changed, so it is looked at first.
            await self._looked_at(channel_id)
            if self._serves(channel_id, revision):
                return self._entries[channel_id][1]
        waits = iter(BEHIND_WAITS_S if self._behind.get(channel_id, 0.0) < time.monotonic() else ())
        while True:
            found = await outlast(lambda: self._reads.submit(channel_id), "delivery.directory")
            if found is None or found.channel.revision >= revision:
                self._behind.pop(channel_id, None)
                return found
            wait = next(waits, None)
            if wait is None:
                self._note_behind(found, revision)
                return found
            await asyncio.sleep(wait)

    def known(self, channel_id: str, revision: int = 0) -> ChannelWebhooks | None:
        """Return what `of_channel` does, where that needs no waiting; None otherwise."""
        entry = self._entries.get(channel_id)
        if entry is None or entry[1].channel.revision < revision:
            return None
        at = time.monotonic()
        if at - entry[0] > FRESH_S:
            if entry[0] == CHANGED and at >= self._away_until:
                return None
            self._look_soon(channel_id)
        self._entries.move_to_end(channel_id)
        return entry[1]

    def fresh(self, channel_id: str) -> ChannelWebhooks | None:
        """Return what `refreshed` does, where that needs no waiting; None otherwise."""
        entry, at = self._entries.get(channel_id), time.monotonic()
        if entry is None or (at - entry[0] > FRESH_S and at >= self._away_until):
            return None
        return self.known(channel_id)

    async def refreshed(self, channel_id: str) -> ChannelWebhooks | None:
        """Return a channel with its webhooks as they were within the last FRESH_S; None where it is deleted.

        Older only where the database does not answer soon.
        """
        if channel_id in self._entries and self.fresh(channel_id) is None:
            await self._looked_at(channel_id)
        return await self.of_channel(channel_id)

    async def webhook(self, channel_id: str, webhook_id: str) -> Webhook | None:
        """Return a webhook as it is now, or None where it or its channel is deleted."""
        entry = await self.of_channel(channel_id)
        return None if entry is None else entry.webhook(webhook_id)

    def forget(self, channel_id: str) -> None:
        """Look at a channel before it is used again; what was asked of it before counts no more.

        It is kept, for with the database away it serves on.
        """
        entry = self._entries.get(channel_id)
        if entry is not None:
            self._entries[channel_id] = (CHANGED, entry[1])
        self._looking.pop(channel_id, None)
        for changed in self._changed:
            changed.add(channel_id)

    async def close(self) -> None:
        """End the reads that are under way."""
        await self._reads.abandon()
        await self._looks.abandon()

    def _serves(self, channel_id: str, revision: int) -> bool:
        entry = self._entries.get(channel_id)
        return entry is not None and entry[1].channel.revision >= revision

    async def _looked_at(self, channel_id: str) -> None:
        """Wait until a channel was looked at, or the database is thought to be away."""
        look = self._look_soon(channel_id)
        await asyncio.wait({look}, timeout=LOOK_TIMEOUT_S)
        if not look.done():
            self._away_until = time.monotonic() + AWAY_FOR_S

    def _look_soon(self, channel_id: str) -> asyncio.Future[None]:
        look = self._looking.get(channel_id)
        if look is None:
            look = self._looking[channel_id] = self._looks.put(channel_id)
        return look

    def _note_behind(self, found: ChannelWebhooks, revision: int) -> None:
        now, channel = time.monotonic(), found.channel
        if self._behind.get(channel.id, 0.0) < now:
            log.warning(
                "delivery.revision_ahead",
                channel=channel.id,
                response=revision,
                database=channel.revision,
                why="the database is older than the response, as after restoring a dump; its webhooks are served",
            )
            if len(self._behind) >= MOST_BEHIND:
                self._behind.clear()
            self._behind[channel.id] = now + BEHIND_FOR_S

    async def _read(self, channel_ids: Sequence[str]) -> list[ChannelWebhooks | None]:
        with self._asking() as (asked, changed):
            found = await self._source.of_channels(channel_ids)
        for channel_id in channel_ids:
            if channel_id in changed:
                continue
            new, (at, _) = found.get(channel_id), self._entries.get(channel_id, (asked, None))
            if new is None:
                self._entries.pop(channel_id, None)
            elif at <= asked:
                # Also where its revision is a lower one: the database has been restored then.
                self._entries[channel_id] = (asked, new)
                self._entries.move_to_end(channel_id)
        while len(self._entries) > self._most:
            self._entries.popitem(last=False)
        return [found.get(channel_id) for channel_id in channel_ids]

    async def _look(self, channel_ids: Sequence[str]) -> list[None]:
        """Read those entries anew that are not right any more."""
        try:
            with self._asking() as (asked, changed):
                revisions = await self._source.revisions(channel_ids)
            old = []
            for channel_id in channel_ids:
                at, entry = self._entries.get(channel_id, (asked, None))
                if entry is None or channel_id in changed:
                    continue
                if revisions.get(channel_id) == entry.channel.revision:
                    self._entries[channel_id] = (max(at, asked), entry)
                else:
                    old.append(channel_id)
            if old:
                await self._read(old)
            self._away_until = 0.0
        except RegistryUnavailable:
            # With the database away the old entries serve on.
            self._away_until = time.monotonic() + AWAY_FOR_S
        finally:
            for channel_id in channel_ids:
                self._looking.pop(channel_id, None)
        return [None] * len(channel_ids)

    @contextmanager
    def _asking(self) -> Iterator[tuple[float, set[str]]]:
        """Give the moment of a question, and the channels that are said to have changed until it is answered."""
        changed: set[str] = set()
        self._changed.append(changed)
        try:
            yield time.monotonic(), changed
        finally:
            # By identity: two that are empty are equal.
            self._changed = [each for each in self._changed if each is not changed]
