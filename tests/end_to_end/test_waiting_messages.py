"""What waits for a bot outlives the process that let it wait, and goes on by itself."""

import asyncio
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from deployment import Deployment
from processes import ARRIVAL_S, Receiver, until

from broker.registry.database import Database
from broker.registry.waiting_messages import WaitingMessages

BOTS = [sys.executable, str(Path(__file__).parent / "bots_program.py")]
USERS, EACH = 20, 15
PREFETCH, PARTITIONS = 20, 4


@pytest.fixture(params=["embedded", "servers"])
def deployment(request: pytest.FixtureRequest) -> Deployment:
    """Provide each deployment in turn."""
    found: Deployment = request.getfixturevalue(request.param)
    return found


@pytest.fixture
async def store(deployment: Deployment) -> AsyncIterator[WaitingMessages]:
    """Provide where messages wait; there once the deployment has migrated."""
    environment = deployment.environment
    file = Path(environment.get("POSTBOTE_DATA_DIR", "")) / "registry.db"
    database = Database(environment.get("POSTBOTE_DATABASE_URL", f"sqlite:///{file}"))
    yield WaitingMessages(database)
    await database.close()


async def until_waiting(store: WaitingMessages, least: int) -> None:
    """Wait until so many messages wait, or more."""
    async with asyncio.timeout(ARRIVAL_S):
        while sum((await store.counts()).values()) < least:  # noqa: ASYNC110 - a table sends no event
            await asyncio.sleep(0.05)


async def test_kill_9_while_messages_wait_loses_none_and_they_go_on_though_no_message_comes(
    deployment: Deployment, store: WaitingMessages, receiver: Receiver, tmp_path: Path
) -> None:
    hangs = tmp_path / "hangs"
    hangs.touch()
    deployment.environment |= {"TEST_BOT_HANGS": str(hangs), "POSTBOTE_PREFETCH": str(PREFETCH)}
    embedded = "POSTBOTE_AMQP_URL" not in deployment.environment
    answering = "run" if embedded else "bot"
    started = await deployment.start(*(["run"] if embedded else ["api", "deliver", "bot"]), under=BOTS)
    process = started[-1]
    api = deployment.api
    channel, token = await api.channel("hangs")
    quick, quick_token = await api.channel("echo")
    await api.webhook(channel, receiver, "/slow")
    await api.webhook(quick, receiver, "/quick")
    for number in range(EACH):
        said = (api.say(channel, token, f"user-{user}", str(number)) for user in range(USERS))
        assert set(await asyncio.gather(*said)) == {200}
    most_in_hand = PREFETCH * PARTITIONS
    await until_waiting(store, USERS * EACH - most_in_hand)
    for user in range(USERS):
        assert await api.say(quick, quick_token, f"other-{user}", "hello") == 200
    await until(lambda: receiver.distinct("/quick") == USERS, ARRIVAL_S, "answers of the bot that works")
    assert receiver.distinct("/slow") == 0
    await process.kill()
    (process,) = await deployment.start(answering, under=BOTS)
    await until_waiting(store, USERS * EACH - most_in_hand)
    await process.kill()
    hangs.unlink()
    await deployment.start(answering, under=BOTS)
    await until(lambda: receiver.distinct("/slow") == USERS * EACH, ARRIVAL_S, "all answers of the other")
    for user in range(USERS):
        assert list(dict.fromkeys(receiver.texts[f"user-{user}"])) == [str(n) for n in range(EACH)]
        assert receiver.first_arrivals("/slow", f"user-{user}") == list(range(1, EACH + 1))
    async with asyncio.timeout(ARRIVAL_S):
        while await store.counts():  # noqa: ASYNC110 - a table sends no event
            await asyncio.sleep(0.05)
