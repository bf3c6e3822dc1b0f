"""Which message was begun alone is known after the process that began it is gone."""

from broker.registry.database import Database
from broker.registry.suspects import Suspects


async def test_begun_and_not_ended_is_counted_for_each_queue_and_message_apart(database: Database) -> None:
    suspects = Suspects(database)
    assert [await suspects.begin("q", "m") for _ in range(3)] == [0, 1, 2]
    assert await suspects.begun("q", "m") == 3
    assert await suspects.begun("q", "other") == 0
    assert await suspects.begin("q", "other") == 0
    assert await suspects.begin("another", "m") == 0
    await suspects.end("q", "m")
    assert await suspects.begin("q", "m") == 0
    assert await suspects.begin("another", "m") == 1
    await suspects.end("q", "never begun")
