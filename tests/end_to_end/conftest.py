"""Fixtures of the end-to-end tests: a deployment on real servers, or in one process without any."""

from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from deployment import Deployment
from processes import ADMIN, Api, Receiver, open_receiver
from servers.process import free_port


async def _deployment(environment: dict[str, str], folder: Path) -> AsyncIterator[Deployment]:
    port = free_port()
    common = {"POSTBOTE_ADMIN_TOKEN": ADMIN, "POSTBOTE_PORT": str(port), "POSTBOTE_PARTITIONS": "4"}
    async with aiohttp.ClientSession() as session:
        deployment = Deployment({**common, **environment}, folder, Api(session, f"http://127.0.0.1:{port}"))
        try:
            yield deployment
        finally:
            await deployment.end()


@pytest.fixture
async def servers(amqp_url: str, postgres_url: str, tmp_path: Path) -> AsyncIterator[Deployment]:
    """Provide a deployment on RabbitMQ and PostgreSQL; nothing is started yet."""
    environment = {
        "POSTBOTE_AMQP_URL": amqp_url,
        "POSTBOTE_DATABASE_URL": postgres_url,
        "POSTBOTE_WEBHOOK_ALLOW_NETWORKS": "127.0.0.0/8",
    }
    async for deployment in _deployment(environment, tmp_path):
        yield deployment


@pytest.fixture
async def embedded(tmp_path: Path) -> AsyncIterator[Deployment]:
    """Provide a deployment in one process, without servers; nothing is started yet."""
    async for deployment in _deployment({"POSTBOTE_DATA_DIR": str(tmp_path / "data")}, tmp_path):
        yield deployment


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    """Provide a receiver of webhooks."""
    async with open_receiver() as opened:
        yield opened
