"""Idempotency keys: which message a key names, for a day.

As draft-ietf-httpapi-idempotency-key-header has it: the same key with the same body is the same request, and with
another body a mistake.
"""

from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import and_, delete, select, tuple_

from broker.models.records import now
from broker.registry.database import Database
from broker.registry.tables import idempotency_keys

#: For how long a key names its message.
LASTS = timedelta(hours=24)
#: Keys cleared away in one transaction.
ROWS_A_PIECE = 2000


@dataclass(frozen=True, slots=True)
class Named:
    """The message that a key names, and the fingerprint of the body that it was first sent with."""

    message_id: str
    fingerprint: str


class IdempotencyKeys:
    """Reads and writes idempotency keys. Both methods raise RegistryUnavailable."""

    def __init__(self, database: Database) -> None:
        self._db = database

    async def claim(self, channel_id: str, key: str, fingerprint: str, message_id: str) -> Named:
        """Have a key name a message, unless it names one already; returns what it names.

        Of two who claim it at once, both get the same answer.
        """
        values = {"fingerprint": fingerprint, "message_id": message_id, "created_at": now()}
        named = self._db.insert(idempotency_keys).values(channel_id=channel_id, key=key, **values)
        claim = named.on_conflict_do_update(
            index_elements=[idempotency_keys.c.channel_id, idempotency_keys.c.key],
            set_=values,
            where=idempotency_keys.c.created_at < now() - LASTS,
        ).returning(idempotency_keys.c.message_id)
        found = select(idempotency_keys.c.message_id, idempotency_keys.c.fingerprint).where(
            and_(idempotency_keys.c.channel_id == channel_id, idempotency_keys.c.key == key)
        )
        async with self._db.write() as connection:
            if (await connection.execute(claim)).first() is not None:
                return Named(message_id, fingerprint)
            row = (await connection.execute(found)).one()
        return Named(row.message_id, row.fingerprint)

    async def clear(self) -> None:
        """Clear away the keys that name nothing any more, in pieces."""
        name = (idempotency_keys.c.channel_id, idempotency_keys.c.key)
        old = idempotency_keys.c.created_at < now() - LASTS
        # Asked again of the row itself: it may have been claimed anew since it was found.
        some = delete(idempotency_keys).where(
            tuple_(*name).in_(select(*name).where(old).limit(ROWS_A_PIECE)), old
        )
        cleared = ROWS_A_PIECE
        while cleared == ROWS_A_PIECE:
            async with self._db.write() as connection:
                cleared = (await connection.execute(some)).rowcount
