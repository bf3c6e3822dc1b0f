"""Two API processes on one RabbitMQ and PostgreSQL: a token that one of them revoked opens nothing at the other."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import pytest
from aiohttp import ClientResponse

from broker.api import doors
from broker.api.parts import DOORS
from broker.news import ChannelNews
from broker.rabbitmq.broker import RabbitBroker
from broker.registry.channels import Channels
from broker.registry.database import Database
from broker.registry.webhooks import Webhooks
from broker.topology import Topology

MESSAGE = {"message": {"textMessage": {"text": "hello"}}, "user": {"id": "ada"}}
#: What a busy machine may take, in seconds; far below what a door is believed for where only news can help.
BUSY_S = 20.0
FOR_EVER_S = 1000.0


@pytest.fixture
async def apis(serve: Any, parts: Any, amqp_url: str, postgres_url: str) -> AsyncIterator[tuple[Any, Any]]:
    """Provide two APIs with a broker and a database of their own each."""
    made = []
    async with AsyncExitStack() as stack:
        for _ in range(2):
            database = Database(postgres_url)
            stack.push_async_callback(database.close)
            broker = RabbitBroker(amqp_url, Topology(2))
            stack.push_async_callback(broker.close)
            await broker.start()
            made.append(
                await serve(
                    broker=broker,
                    database=database,
                    channels=Channels(database),
                    webhooks=Webhooks(database),
                )
            )
        yield made[0], made[1]
        for api in made:
            await api.http.close()


async def hears(listener: Any, teller: Any) -> None:
    """Wait until one API hears what another tells."""
    channel = await teller.channel()
    assert (await listener.post(channel, MESSAGE)).status == 200
    async with asyncio.timeout(BUSY_S):
        while listener.http.app[DOORS].at_hand(channel["id"]) is not None:
            renamed = await teller.call("PATCH", f"/v1/channels/{channel['id']}", {"name": "Other"})
            assert renamed.status == 200


async def until_refused(api: Any, channel: dict[str, Any], within_s: float) -> int:
    """Post until that is refused, and return how."""
    async with asyncio.timeout(within_s):
        while True:
            answer: ClientResponse = await api.post(channel, MESSAGE)
            if answer.status != 200:
                return answer.status


async def test_a_token_that_another_process_revoked_is_refused_as_soon_as_that_is_told(
    apis: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("FRESH_S", "BELIEVED_S"):
        monkeypatch.setattr(doors, name, FOR_EVER_S, raising=False)
    one, other = apis
    await hears(other, one)
    channel = await one.channel()
    assert (await other.post(channel, MESSAGE)).status == 200
    assert (await one.call("DELETE", f"/v1/channels/{channel['id']}")).status == 204
    assert await until_refused(other, channel, BUSY_S) == 404


async def test_a_token_that_another_process_revoked_is_refused_soon_though_nobody_was_told(
    apis: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doors, "BELIEVED_S", FOR_EVER_S)
    monkeypatch.setattr(ChannelNews, "changed", lambda self, channel_id: None)
    one, other = apis
    channel = await one.channel()
    assert (await other.post(channel, MESSAGE)).status == 200
    assert (await one.call("DELETE", f"/v1/channels/{channel['id']}")).status == 204
    assert await until_refused(other, channel, BUSY_S) == 404
