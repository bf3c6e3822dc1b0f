"""What messages cost PostgreSQL's disk: what it keeps of each, and what it writes for it."""

from dataclasses import dataclass

from sqlalchemy import func, select, text

from broker.registry.database import Database
from broker.registry.tables import deliveries, turns


@dataclass(frozen=True)
class Written:
    """What PostgreSQL has written since it began: bytes of its write-ahead log, and transactions."""

    wal_bytes: int
    commits: int

    #: How many turns it keeps.
    turns: int

    def since(self, before: "Written") -> dict[str, float]:
        """Return what of it each turn took."""
        more = self.turns - before.turns
        return {
            "wal_bytes": (self.wal_bytes - before.wal_bytes) / more,
            "commits": (self.commits - before.commits) / more,
        }


async def written(database: Database) -> Written:
    """Read what PostgreSQL has written; transactions are told of with a delay of up to a second."""
    async with database.read() as connection:
        found = await connection.execute(
            text(
                "SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0'), xact_commit, (SELECT count(*) FROM turns)"
                " FROM pg_stat_database WHERE datname = current_database()"
            )
        )
        return Written(*map(int, found.one()))


async def bytes_on_disk(database: Database) -> dict[str, float]:
    """Return what a turn and a delivery take on PostgreSQL's disk, indexes included."""
    async with database.read() as connection:
        found = {}
        for what, table in (("turn", turns), ("delivery", deliveries)):
            size = (
                await connection.execute(
                    select(func.pg_total_relation_size(table.name), func.count()).select_from(table)
                )
            ).one()
            found[f"{what}_bytes"] = size[0] / size[1]
        return found
