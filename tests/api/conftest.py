"""The API on a real registry (SQLite) and a real broker (embedded), served on a port of its own."""

import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientResponse
from aiohttp.test_utils import TestClient, TestServer
from pydantic import SecretStr

from broker.api.app import Parts, make_app
from broker.embedded.broker import EmbeddedBroker
from broker.models.records import UserMessage
from broker.partitions import conversation_key, partition_of, partition_word
from broker.port import Envelope
from broker.registry.channels import Channels
from broker.registry.database import Database
from broker.registry.dead_letters import DeadLetters
from broker.registry.deliveries import Deliveries
from broker.registry.history import History
from broker.registry.idempotency import IdempotencyKeys
from broker.registry.migration import migrate
from broker.registry.redrive import Redrive
from broker.registry.webhooks import Webhooks
from broker.settings import Settings
from broker.topology import Topology, inbound_queue

ADMIN = {"Authorization": "Bearer admin-secret"}
PARTITIONS = 2


@dataclass
class Api:
    """A running API, with the parts behind it."""

    http: TestClient[Any, Any]
    parts: Parts

    async def call(self, method: str, path: str, body: object = None, **options: Any) -> ClientResponse:
        """Call as the administrator."""
        options.setdefault("headers", ADMIN)
        return await self.http.request(method, path, json=body, **options)

    async def channel(self, **fields: Any) -> dict[str, Any]:
        """Create a channel."""
        answer = await self.call("POST", "/v1/channels", {"name": "Shop", "bot": {"type": "echo"}, **fields})
        assert answer.status == 201, await answer.text()
        created: dict[str, Any] = await answer.json()
        return created

    async def webhook(self, channel_id: str, **fields: Any) -> dict[str, Any]:
        """Register a webhook."""
        body = {"url": "https://example.com/hook", **fields}
        answer = await self.call("POST", f"/v1/channels/{channel_id}/webhooks", body)
        assert answer.status == 201, await answer.text()
        created: dict[str, Any] = await answer.json()
        return created

    async def post(self, channel: dict[str, Any], body: object, **headers: str) -> ClientResponse:
        """Post a message as the channel's client."""
        return await self.http.post(
            f"/v1/channels/webhook/{channel['id']}/messages",
            json=body,
            headers={"Authorization": f"Bearer {channel['accessToken']}"}
            | {name.replace("_", "-"): value for name, value in headers.items()},
        )

    async def queued(self, channel_id: str, user_id: str) -> tuple[Envelope, UserMessage]:
        """Take the first message from the queue of a conversation's partition."""
        partition = partition_of(conversation_key(channel_id, user_id), PARTITIONS)
        async with self.parts.broker.subscribe(inbound_queue(partition_word(partition)), 10) as hold:
            envelope = (await hold.receive())[0]
            return envelope, UserMessage.model_validate_json(envelope.body)


@pytest.fixture(scope="session")
def empty_registry(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated database, to be copied."""
    import asyncio

    path = tmp_path_factory.mktemp("registry") / "registry.db"
    asyncio.run(migrate(f"sqlite:///{path}"))
    return path


@pytest.fixture
def registry_url(tmp_path: Path, empty_registry: Path) -> str:
    """A database of the test's own."""
    shutil.copy(empty_registry, tmp_path / "registry.db")
    return f"sqlite:///{tmp_path / 'registry.db'}"


@pytest.fixture
async def parts(tmp_path: Path, registry_url: str) -> AsyncIterator[Parts]:
    """Everything behind the API, opened."""
    settings = Settings(data_dir=tmp_path, partitions=PARTITIONS, database_url=SecretStr(registry_url))
    database = Database(settings.database)
    broker = EmbeddedBroker(tmp_path / "queues.db", Topology(PARTITIONS))
    await broker.start()
    yield Parts(
        settings=settings,
        admin_token="admin-secret",
        broker=broker,
        database=database,
        channels=Channels(database),
        webhooks=Webhooks(database),
        history=History(database),
        deliveries=Deliveries(database),
        dead_letters=DeadLetters(database),
        idempotency_keys=IdempotencyKeys(database),
        redrive=Redrive(database, PARTITIONS),
        ping=None,
        bot_types=frozenset({"echo", "demo"}),
    )
    await broker.close()
    await database.close()


Serve = Callable[..., Awaitable[Api]]


@pytest.fixture
async def serve(parts: Parts) -> AsyncIterator[Serve]:
    """Serve the API with some of its parts changed."""
    clients: list[TestClient[Any, Any]] = []

    async def start(**changes: Any) -> Api:
        changed = replace(parts, **changes)
        client = TestClient(TestServer(make_app(changed)))
        clients.append(client)
        await client.start_server()
        return Api(client, changed)

    yield start
    for client in clients:
        await client.close()


@pytest.fixture
async def api(serve: Serve) -> Api:
    """The API as it is."""
    return await serve()
