"""Suspects: messages that were begun alone because they came back often; see consumers.trials."""

from sqlalchemy import delete, select

from broker.models.records import now
from broker.registry.database import Database
from broker.registry.tables import suspects


class Suspects:
    """Reads and writes suspects. All methods raise RegistryUnavailable."""

    def __init__(self, database: Database) -> None:
        self._db = database

    async def begun(self, queue: str, message: str) -> int:
        """Return how often a message was begun and not ended."""
        asked = select(suspects.c.begun).where(suspects.c.queue == queue, suspects.c.message == message)
        async with self._db.read() as connection:
            return (await connection.execute(asked)).scalar_one_or_none() or 0

    async def begin(self, queue: str, message: str) -> int:
        """Write that a message is begun; returns how often it was begun before and not ended."""
        insert = self._db.insert(suspects).values(queue=queue, message=message, begun=1, begun_at=now())
        counted = insert.on_conflict_do_update(
            index_elements=[suspects.c.queue, suspects.c.message],
            set_={"begun": suspects.c.begun + 1, "begun_at": insert.excluded.begun_at},
        ).returning(suspects.c.begun)
        async with self._db.write() as connection:
            begun: int = (await connection.execute(counted)).scalar_one()
        return begun - 1

    async def end(self, queue: str, message: str) -> None:
        """Write that the process outlived it."""
        async with self._db.write() as connection:
            await connection.execute(
                delete(suspects).where(suspects.c.queue == queue, suspects.c.message == message)
            )
