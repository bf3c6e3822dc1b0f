"""A registry of the test's own, on each of the two databases in turn."""

import asyncio
import threading
from collections.abc import AsyncIterator

import pytest

from broker.registry.database import Database


@pytest.fixture
async def database(database_url: str, connections_end: None) -> AsyncIterator[Database]:
    """Provide an empty, migrated database."""
    database = Database(database_url)
    yield database
    await database.close()


@pytest.fixture
async def connections_end() -> AsyncIterator[None]:
    """Keep the event loop until SQLite connections that failed or were cancelled have ended.

    Each has a thread, which answers the event loop once more when it is told to stop.
    """
    yield
    for thread in threading.enumerate():
        if "_connection_worker_thread" in thread.name:
            await asyncio.to_thread(thread.join, 5)
