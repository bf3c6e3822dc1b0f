"""While the broker or the database is away or silent, the API says so within two seconds, and recovers by itself."""

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import pytest
from deployment import Deployment
from processes import ADMIN, Api
from proxy import Proxy
from servers.process import free_port

#: What senders are promised, and what a busy machine adds to the clock of this process.
PROMISED_S, CLOCK_S = 2.0, 0.5


@dataclass
class Behind:
    """An API whose servers are reached through proxies."""

    deployment: Deployment
    proxies: dict[str, Proxy]


@pytest.fixture
async def behind(amqp_url: str, postgres_url: str, tmp_path: Path) -> AsyncIterator[Behind]:
    """Provide an API behind a proxy for each server; nothing is started yet."""
    proxies = {"RabbitMQ": Proxy.before(amqp_url), "PostgreSQL": Proxy.before(postgres_url)}
    for proxy in proxies.values():
        await proxy.open()
    port = free_port()
    environment = {
        "POSTBOTE_ADMIN_TOKEN": ADMIN,
        "POSTBOTE_PORT": str(port),
        "POSTBOTE_PARTITIONS": "4",
        "POSTBOTE_AMQP_URL": proxies["RabbitMQ"].url(amqp_url),
        "POSTBOTE_DATABASE_URL": proxies["PostgreSQL"].url(postgres_url),
    }
    async with aiohttp.ClientSession() as session:
        deployment = Deployment(environment, tmp_path, Api(session, f"http://127.0.0.1:{port}"))
        try:
            yield Behind(deployment, proxies)
        finally:
            await deployment.end()
            for proxy in proxies.values():
                proxy.flow()
                await proxy.close()


@pytest.mark.parametrize("server", ["RabbitMQ", "PostgreSQL"])
@pytest.mark.parametrize("fault", ["gone", "silent"])
async def test_it_refuses_in_time_and_recovers(behind: Behind, server: str, fault: str) -> None:
    deployment, proxy = behind.deployment, behind.proxies[server]
    await deployment.start("migrate", "api")
    api = deployment.api
    channel, token = await api.channel()

    async def post(number: int) -> tuple[int, float, str | None]:
        began = time.monotonic()
        async with api.session.post(
            f"{api.base}/v1/channels/webhook/{channel}/messages",
            json={"message": {"textMessage": {"text": "hello"}}, "user": {"id": f"user-{number}"}},
            headers={"Authorization": f"Bearer {token}", "Idempotency-Key": f"key-{number}"},
        ) as answer:
            await answer.read()
            return answer.status, time.monotonic() - began, answer.headers.get("Retry-After")

    assert (await post(0))[0] == 200
    if fault == "gone":
        await proxy.close()
    else:
        proxy.stall()
    for number in range(1, 5):
        answers = await asyncio.gather(*(post(number * 100 + each) for each in range(20)))
        for status, took_s, retry_after in answers:
            assert (status, retry_after) == (503, "1")
            assert took_s <= PROMISED_S + CLOCK_S
    began = time.monotonic()
    async with api.session.get(f"{api.base}/readyz") as ready:
        assert ready.status == 503
    async with api.session.get(
        f"{api.base}/v1/channels/{channel}", headers={"Authorization": f"Bearer {ADMIN}"}
    ) as shown:
        assert shown.status == (503 if server == "PostgreSQL" else 200)
    assert time.monotonic() - began <= 2 * (PROMISED_S + CLOCK_S)
    if fault == "gone":
        await proxy.open()
    else:
        proxy.flow()
    async with asyncio.timeout(20):
        while (await post(1))[0] != 200:
            pass
    # What was refused may be sent again, and is one message.
    answers = await asyncio.gather(*(post(100 + each) for each in range(20)))
    assert {status for status, _, _ in answers} == {200}
