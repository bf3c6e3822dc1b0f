"""A bot worker on a real registry, on each database in turn."""

from collections.abc import AsyncIterator

import pytest
from bot_worker_parts import Answering

from broker.registry.channels import Channels
from broker.registry.database import Database
from consumers import turns as turn_rules


@pytest.fixture
async def answering(database_url: str) -> AsyncIterator[Answering]:
    database = Database(database_url)
    channel, _ = await Channels(database).create("test", {"type": "echo"})
    yield Answering(database, channel.id)
    await database.close()


@pytest.fixture(autouse=True)
def quick_tries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turn_rules, "WAITS_S", (0.001, 0.001))
