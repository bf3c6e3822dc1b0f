"""A registry of the test's own, on each of the two databases in turn."""

from collections.abc import AsyncIterator

import pytest

from broker.registry.database import Database


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """Provide an empty, migrated database."""
    database = Database(database_url)
    yield database
    await database.close()
