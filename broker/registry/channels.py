"""Channels and their access tokens. Every change raises the channel's revision, by which caches know."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Row, delete, select, update

from broker.ids import new_id, new_token, token_hash
from broker.models.records import now
from broker.registry.database import Database
from broker.registry.pages import cursor_of, newest_first, page_of
from broker.registry.records import Channel, Page
from broker.registry.rows import keys, one_of
from broker.registry.tables import channels, conversations, tokens, turns

#: A channel's revision, and the hashes of its tokens: these may be changed by hand, which raises no revision.
DoorState = tuple[int, frozenset[str]]
#: How much one transaction clears away: more would run out of time, and keep SQLite's other writers waiting.
ROWS_A_PIECE = 2000


@dataclass(frozen=True, slots=True)
class Door:
    """What the HTTP door asks of a channel: that it exists, and the hashes of the tokens that open it."""

    channel: Channel
    token_hashes: frozenset[str]

    @property
    def state(self) -> DoorState:
        """What differs where the door is out of date."""
        return self.channel.revision, self.token_hashes


class Channels:
    """Reads and writes channels."""

    def __init__(self, database: Database) -> None:
        self._db = database
        joined = channels.outerjoin(tokens, tokens.c.channel_id == channels.c.id)
        of_given = one_of(database.dialect, channels.c.id)
        self._doors = select(channels, tokens.c.hash).select_from(joined).where(of_given)
        self._states = (
            select(channels.c.id, channels.c.revision, tokens.c.hash).select_from(joined).where(of_given)
        )

    async def create(
        self,
        name: str,
        bot: Mapping[str, Any],
        verify_token: str | None = None,
        *,
        channel_id: str | None = None,
        access_token: str | None = None,
        retry_schedule: Sequence[float] | None = None,
        time_to_live_s: float | None = None,
    ) -> tuple[Channel, str]:
        """Create a channel, and return it with its access token, of which only the hash is kept."""
        token = access_token or new_token("pbc_")
        channel = Channel(
            id=channel_id or new_id("ch"),
            name=name,
            bot=dict(bot),
            verify_token=verify_token or new_token(),
            revision=1,
            created_at=now(),
            retry_schedule=retry_schedule,
            time_to_live_s=time_to_live_s,
        )
        async with self._db.write() as connection:
            await connection.execute(
                channels.insert().values(
                    id=channel.id,
                    name=name,
                    bot=channel.bot,
                    verify_token=channel.verify_token,
                    revision=1,
                    retry_schedule=retry_schedule,
                    time_to_live_s=time_to_live_s,
                    created_at=channel.created_at,
                )
            )
            await connection.execute(
                tokens.insert().values(
                    hash=token_hash(token), channel_id=channel.id, created_at=channel.created_at
                )
            )
        return channel, token

    async def get(self, channel_id: str) -> Channel | None:
        """Return a channel, or None."""
        async with self._db.read() as connection:
            row = (await connection.execute(select(channels).where(channels.c.id == channel_id))).first()
        return channel_of(row) if row is not None else None

    async def page(self, cursor: str | None, limit: int) -> Page:
        """Return a page of channels, newest first; raises ValueError for a cursor that is none."""
        query = newest_first(select(channels), channels.c.created_at, channels.c.id, cursor, limit)
        async with self._db.listing() as connection:
            rows = (await connection.execute(query)).all()
        return page_of(rows, limit, channel_of, lambda row: cursor_of(row.created_at, row.id))

    async def update(self, channel_id: str, changes: Mapping[str, Any]) -> Channel | None:
        """Change the named columns; None where there is no such channel."""
        changed = (
            update(channels)
            .where(channels.c.id == channel_id)
            .values(**changes, revision=channels.c.revision + 1)
            .returning(channels)
        )
        async with self._db.write() as connection:
            row = (await connection.execute(changed)).first()
        return channel_of(row) if row is not None else None

    async def delete(self, channel_id: str) -> bool:
        """Delete a channel with its webhooks, tokens, conversations and turns; the delivery log stays.

        The channel goes first and at once; the rest follows in pieces, however much it is. Where that is cut
        short, deleting once more clears it, and returns False.
        """
        async with self._db.write() as connection:
            gone = await connection.execute(delete(channels).where(channels.c.id == channel_id))
        for key in (turns.c.message_id, conversations.c.key):
            some = select(key).where(key.table.c.channel_id == channel_id).limit(ROWS_A_PIECE)
            cleared = ROWS_A_PIECE
            while cleared == ROWS_A_PIECE:
                async with self._db.write() as connection:
                    cleared = (await connection.execute(delete(key.table).where(key.in_(some)))).rowcount
        return bool(gone.rowcount)

    async def doors(self, channel_ids: Iterable[str]) -> dict[str, Door]:
        """Return what the HTTP door asks of channels, by their ids; those that do not exist are not in it."""
        found: dict[str, tuple[Channel, set[str]]] = {}
        async with self._db.read() as connection:
            for row in await connection.execute(self._doors, keys(self._db.dialect, channel_ids)):
                if row.id not in found:
                    found[row.id] = channel_of(row), set()
                if row.hash is not None:
                    found[row.id][1].add(row.hash)
        return {channel.id: Door(channel, frozenset(hashes)) for channel, hashes in found.values()}

    async def states(self, channel_ids: Iterable[str]) -> dict[str, DoorState]:
        """Return by what a door that is out of date is told, by channels' ids; those that do not exist have none."""
        found: dict[str, tuple[int, set[str]]] = {}
        async with self._db.read() as connection:
            for row in await connection.execute(self._states, keys(self._db.dialect, channel_ids)):
                hashes = found.setdefault(row.id, (row.revision, set()))[1]
                if row.hash is not None:
                    hashes.add(row.hash)
        return {channel_id: (revision, frozenset(hashes)) for channel_id, (revision, hashes) in found.items()}


def channel_of(row: Row[Any]) -> Channel:
    """Make a channel of its row."""
    return Channel(
        row.id,
        row.name,
        row.bot,
        row.verify_token,
        row.revision,
        row.created_at,
        row.retry_schedule,
        row.time_to_live_s,
    )
