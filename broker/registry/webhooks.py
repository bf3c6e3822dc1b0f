"""Webhooks. Every change raises the revision of the channel, so that whoever delivers reads them anew."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from itertools import groupby
from operator import attrgetter
from typing import Any

from sqlalchemy import ColumnElement, Row, delete, func, select, true, update
from sqlalchemy.ext.asyncio import AsyncConnection

from broker.errors import ChannelFull, TooManySecrets
from broker.ids import new_id, new_webhook_secret
from broker.models.records import now
from broker.registry.channels import channel_of
from broker.registry.database import Database
from broker.registry.pages import cursor_of, newest_first, page_of
from broker.registry.records import ChannelWebhooks, Page, Webhook
from broker.registry.rows import keys, one_of
from broker.registry.tables import backlog_lanes, channels, webhooks

ALL_RESPONSES = ("response.#",)
#: Secrets of one webhook that sign at a time: each makes its deliveries larger by some 50 bytes.
MOST_SECRETS = 6
_NO_HEADERS: Mapping[str, str] = {}


class Webhooks:
    """Reads and writes webhooks."""

    def __init__(self, database: Database) -> None:
        self._db = database
        of_given = one_of(database.dialect, channels.c.id)
        self._of_channels = (
            select(channels, *(column.label(f"webhook_{column.name}") for column in webhooks.c))
            .outerjoin(webhooks, webhooks.c.channel_id == channels.c.id)
            .where(of_given)
            .order_by(channels.c.id, webhooks.c.created_at, webhooks.c.id)
        )
        self._revisions = select(channels.c.id, channels.c.revision).where(of_given)

    async def create(
        self,
        channel_id: str,
        *,
        url: str,
        verify_token: str | None = None,
        events: Sequence[str] = ALL_RESPONSES,
        headers: Mapping[str, str] = _NO_HEADERS,
        timeout_s: float | None = None,
        retry_schedule: Sequence[float] | None = None,
        time_to_live_s: float | None = None,
        rate_limit: float | None = None,
        expires_at: datetime | None = None,
        enabled: bool = True,
        most: int | None = None,
    ) -> Webhook | None:
        """Register a webhook with a new secret; None where there is no such channel.

        Raises ChannelFull where the channel has `most` webhooks or more.
        """
        values = {
            "id": new_id("wh"),
            "channel_id": channel_id,
            "url": url,
            "verify_token": verify_token,
            "events": list(events),
            "headers": dict(headers),
            "secret": new_webhook_secret(),
            "enabled": enabled,
            "timeout_s": timeout_s,
            "retry_schedule": retry_schedule,
            "time_to_live_s": time_to_live_s,
            "rate_limit": rate_limit,
            "expires_at": expires_at,
            "created_at": now(),
        }
        async with self._db.write() as connection:
            if not await _changed(connection, channel_id):
                return None
            # The channel's row is ours until the end of the transaction, so nobody else adds one meanwhile.
            if most is not None and await _number_up_to(connection, channel_id, most) >= most:
                raise ChannelFull
            row = (await connection.execute(webhooks.insert().values(values).returning(webhooks))).one()
        return webhook_of(row)

    async def get(self, webhook_id: str) -> Webhook | None:
        """Return a webhook, or None."""
        async with self._db.read() as connection:
            row = (await connection.execute(select(webhooks).where(webhooks.c.id == webhook_id))).first()
        return webhook_of(row) if row is not None else None

    async def page(self, channel_id: str, cursor: str | None, limit: int) -> Page:
        """Return a page of a channel's webhooks, newest first; raises ValueError for a rubbish cursor."""
        query = select(webhooks).where(webhooks.c.channel_id == channel_id)
        query = newest_first(query, webhooks.c.created_at, webhooks.c.id, cursor, limit)
        async with self._db.listing() as connection:
            rows = (await connection.execute(query)).all()
        return page_of(rows, limit, webhook_of, lambda row: cursor_of(row.created_at, row.id))

    async def update(self, webhook_id: str, changes: Mapping[str, Any]) -> Webhook | None:
        """Change the named columns; None where there is no such webhook.

        Enabling clears the reason, and what is known of failures. After that, and after a change of the URL or of the
        rate, whatever waits in the backlog is due at once.
        """
        values = dict(changes)
        if values.get("enabled") is True:
            values.update(disabled_reason=None, failing_since=None)
        async with self._db.write() as connection:
            found = select(webhooks.c.channel_id).where(webhooks.c.id == webhook_id)
            channel_id = (await connection.execute(found)).scalar()
            # The channel first, as everywhere, so that two changes never wait for each other.
            if channel_id is None or not await _changed(connection, channel_id):
                return None
            changed = update(webhooks).where(webhooks.c.id == webhook_id).returning(webhooks)
            row = (await connection.execute(changed.values(**(values or {"id": webhook_id})))).first()
            if values.get("enabled") is True or "url" in values or "rate_limit" in values:
                await connection.execute(
                    update(backlog_lanes)
                    .where(backlog_lanes.c.webhook_id == webhook_id, backlog_lanes.c.next_attempt_at > now())
                    .values(next_attempt_at=now())
                )
        return webhook_of(row) if row is not None else None

    async def renew(self, webhook_id: str, expires_at: datetime | None) -> Webhook | None:
        """Put off when a webhook expires; None where there is no such webhook, or no more.

        Nobody delivers otherwise for it, so the channel's revision stays.
        """
        renewed = update(webhooks).where(webhooks.c.id == webhook_id).values(expires_at=expires_at)
        async with self._db.write() as connection:
            row = (await connection.execute(renewed.returning(webhooks))).first()
        return webhook_of(row) if row is not None else None

    async def delete_expired(self, limit: int) -> list[str]:
        """Delete up to `limit` webhooks that have expired, as `delete` does, and return their ids."""
        async with self._db.read() as connection:
            expired = webhooks.c.expires_at <= now()
            found = await connection.execute(select(webhooks.c.id).where(expired).limit(limit))
            ids = [row.id for row in found]
        return [webhook_id for webhook_id in ids if await self._delete(webhook_id, expired) is not None]

    async def note_failing(self, webhook_id: str, since: datetime) -> None:
        """Write since when a webhook has done nothing but fail, where that is not written yet.

        Nobody's copy of the webhook is any worse without it, so the channel's revision stays.
        """
        await self._note(webhook_id, webhooks.c.failing_since.is_(None), since)

    async def note_delivered(self, webhook_id: str) -> None:
        """Write that a webhook does not only fail; the channel's revision stays."""
        await self._note(webhook_id, webhooks.c.failing_since.is_not(None), None)

    async def _note(self, webhook_id: str, where: ColumnElement[bool], since: datetime | None) -> None:
        noted = update(webhooks).where(webhooks.c.id == webhook_id, where).values(failing_since=since)
        async with self._db.write() as connection:
            await connection.execute(noted)

    async def delete(self, webhook_id: str) -> str | None:
        """Delete a webhook, and return its channel's id; None where there is no such webhook.

        What waits for it in the backlog is given up when its turn comes.
        """
        return await self._delete(webhook_id, true())

    async def _delete(self, webhook_id: str, where: ColumnElement[bool]) -> str | None:
        async with self._db.write() as connection:
            found = select(webhooks.c.channel_id).where(webhooks.c.id == webhook_id, where)
            channel_id: str | None = (await connection.execute(found)).scalar()
            if channel_id is None or not await _changed(connection, channel_id):
                return None
            gone = await connection.execute(delete(webhooks).where(webhooks.c.id == webhook_id, where))
        return channel_id if gone.rowcount else None

    async def rotate_secret(self, webhook_id: str, *, overlap: timedelta) -> Webhook | None:
        """Give a webhook a new secret; the old one signs too for as long as `overlap`, however many come after it.

        None where there is no such webhook. Raises TooManySecrets where so many sign already.
        """
        asked = select(webhooks).where(webhooks.c.id == webhook_id)
        async with self._db.write() as connection:
            row = (await connection.execute(asked)).first()
            if row is None or not await _changed(connection, row.channel_id):
                return None
            # Once more: the channel is ours now, and with it what another rotation wrote meanwhile is here.
            row = (await connection.execute(asked)).first()
            if row is None:
                return None
            at, before = now(), webhook_of(row)
            older = [each for each in before.older_secrets or () if at < datetime.fromisoformat(each[1])]
            if before.previous_secret and before.previous_secret_until and at < before.previous_secret_until:
                older.append([before.previous_secret, before.previous_secret_until.isoformat()])
            if len(older) + 2 > MOST_SECRETS:
                soonest = min(until for _, until in older)
                raise TooManySecrets(
                    f"{MOST_SECRETS} secrets of this webhook sign already, for each is promised to; rotate it again "
                    f"after {soonest}."
                )
            values = {
                "secret": new_webhook_secret(),
                "previous_secret": before.secret,
                "previous_secret_until": at + overlap,
                "older_secrets": older or None,
            }
            changed = update(webhooks).where(webhooks.c.id == webhook_id).values(values).returning(webhooks)
            return webhook_of((await connection.execute(changed)).one())

    async def of_channel(self, channel_id: str) -> ChannelWebhooks | None:
        """Return a channel with all its webhooks, oldest first, as of one moment; None without one."""
        return (await self.of_channels([channel_id])).get(channel_id)

    async def of_channels(self, channel_ids: Iterable[str]) -> dict[str, ChannelWebhooks]:
        """Return channels by their ids, each with all its webhooks, oldest first, as of one moment."""
        found: dict[str, ChannelWebhooks] = {}
        async with self._db.read() as connection:
            rows = await connection.execute(self._of_channels, keys(self._db.dialect, channel_ids))
            for channel_id, of_one in groupby(rows, key=attrgetter("id")):
                joined = list(of_one)
                hooks = [_webhook_of_join(row) for row in joined if row.webhook_id is not None]
                found[channel_id] = ChannelWebhooks(channel_of(joined[0]), hooks)
        return found

    async def revisions(self, channel_ids: Iterable[str]) -> dict[str, int]:
        """Return the revisions of channels, by their ids; those that are deleted have none."""
        async with self._db.read() as connection:
            rows = await connection.execute(self._revisions, keys(self._db.dialect, channel_ids))
            return {row.id: row.revision for row in rows}


async def _changed(connection: AsyncConnection, channel_id: str) -> bool:
    """Raise a channel's revision; False where there is no such channel."""
    raised = await connection.execute(
        update(channels).where(channels.c.id == channel_id).values(revision=channels.c.revision + 1)
    )
    return bool(raised.rowcount)


async def _number_up_to(connection: AsyncConnection, channel_id: str, most: int) -> int:
    """Count a channel's webhooks, at most so many."""
    some = select(webhooks.c.id).where(webhooks.c.channel_id == channel_id).limit(most).subquery()
    return (await connection.execute(select(func.count()).select_from(some))).scalar_one()


_COLUMNS = [column.name for column in webhooks.c]


def webhook_of(row: Row[Any]) -> Webhook:
    """Make a webhook of its row."""
    return Webhook(**{name: getattr(row, name) for name in _COLUMNS})


def _webhook_of_join(row: Row[Any]) -> Webhook:
    return Webhook(**{name: getattr(row, f"webhook_{name}") for name in _COLUMNS})
