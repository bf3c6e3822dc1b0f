"""Migrations: brings a database to the schema of this version, with Alembic."""

from pathlib import Path

from sqlalchemy import Connection, text

from broker.registry.engine import make_engine
from broker.registry.outages import outages_told

#: Any number will do, as long as two migrations of one database use the same.
LOCK = 7_095_071


async def migrate(url: str) -> None:
    """Bring the database to the newest schema; safe where two processes do it at once.

    Raises RegistryUnavailable where the database does not answer.
    """
    engine = make_engine(url)
    try:
        with outages_told():
            async with engine.connect() as connection:
                await connection.run_sync(_upgrade)
                await connection.commit()
    finally:
        await engine.dispose()


def _upgrade(connection: Connection) -> None:
    from alembic import command
    from alembic.config import Config

    if connection.dialect.name == "postgresql":
        connection.execute(text(f"SELECT pg_advisory_xact_lock({LOCK})"))
    else:
        connection.exec_driver_sql("BEGIN IMMEDIATE")
    config = Config()
    # A configuration file would read a percent sign as the beginning of a name.
    scripts = str(Path(__file__).parent / "migrations").replace("%", "%%")
    config.set_main_option("script_location", scripts)
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
