"""A key names one message for a day, whoever asks, and as often as they ask."""

import asyncio
from datetime import timedelta

import pytest
from sqlalchemy import func, select

from broker.models.records import now
from broker.registry import idempotency
from broker.registry.database import Database
from broker.registry.idempotency import IdempotencyKeys, Named
from broker.registry.tables import idempotency_keys


async def test_the_first_claim_names_the_message_and_later_ones_learn_of_it(database: Database) -> None:
    keys = IdempotencyKeys(database)
    assert await keys.claim("ch", "key", "print", "m1") == Named("m1", "print")
    assert await keys.claim("ch", "key", "print", "m2") == Named("m1", "print")
    assert await keys.claim("ch", "key", "other", "m3") == Named("m1", "print")
    assert await keys.claim("another", "key", "print", "m4") == Named("m4", "print")


async def test_of_many_at_once_all_learn_of_the_same_message(database: Database) -> None:
    keys = IdempotencyKeys(database)
    named = await asyncio.gather(*(keys.claim("ch", "key", "print", f"m{n}") for n in range(20)))
    assert len(set(named)) == 1


async def test_after_a_day_a_key_names_another_message(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = IdempotencyKeys(database)
    await keys.claim("ch", "key", "print", "m1")
    await keys.claim("ch", "young", "print", "m2")
    tomorrow = now() + timedelta(hours=24, minutes=1)
    monkeypatch.setattr(idempotency, "now", lambda: tomorrow)
    assert await keys.claim("ch", "key", "new print", "m3") == Named("m3", "new print")
    assert await keys.claim("ch", "key", "new print", "m4") == Named("m3", "new print")
    await keys.clear()
    async with database.read() as connection:
        assert await connection.scalar(select(func.count()).select_from(idempotency_keys)) == 1
