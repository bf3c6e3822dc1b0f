"""A deployment under measurement: a database and a virtual host of its own, a channel, webhooks and processes."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field

from bench.processes import PROGRAM, Child, Meter, run, start
from bench.servers import Servers
from broker.rabbitmq.broker import RabbitBroker
from broker.registry.channels import Channels
from broker.registry.database import Database
from broker.registry.records import Channel, Webhook
from broker.registry.webhooks import Webhooks
from broker.topology import Topology

ADMIN = "bench-admin-token"


@dataclass
class Deployment:
    """What a measurement starts processes in."""

    servers: Servers
    settings: dict[str, str]
    database: Database
    channel: Channel
    token: str
    partitions: int
    stack: AsyncExitStack
    children: list[Child] = field(default_factory=list)

    async def webhooks(self, url: str, number: int = 1, channel: Channel | None = None) -> list[Webhook]:
        """Register webhooks with one URL."""
        made = []
        for _ in range(number):
            webhook = await Webhooks(self.database).create((channel or self.channel).id, url=url)
            assert webhook is not None
            made.append(webhook)
        return made

    async def another_channel(self) -> Channel:
        """Make one more channel."""
        channel, _ = await Channels(self.database).create("bench", {"type": "echo"})
        return channel

    async def start(
        self, name: str, environment: Mapping[str, str] | None = None, program: str = PROGRAM
    ) -> Child:
        """Start a process; it ends with the deployment."""
        child = await start(name, {**self.settings, **(environment or {})}, program)
        self.children.append(child)
        self.stack.push_async_callback(child.stop)
        return child

    async def stop(self) -> None:
        """End all processes, the newest first."""
        for child in reversed(self.children):
            await child.stop()

    def meter(self, more: Mapping[str, Sequence[int]] | None = None) -> Meter:
        """Make a meter of all processes and servers."""
        groups: dict[str, list[int]] = {
            "rabbitmq": [self.servers.rabbitmq.pid],
            "postgres": [self.servers.postgres.pid],
        }
        for child in self.children:
            groups.setdefault(child.name, []).append(child.pid)
        return Meter({**groups, **(more or {})})

    @asynccontextmanager
    async def broker(self) -> AsyncIterator[RabbitBroker]:
        """Connect to its broker."""
        broker = RabbitBroker(self.settings["POSTBOTE_AMQP_URL"], Topology(self.partitions))
        await broker.start()
        try:
            yield broker
        finally:
            await broker.close()


@asynccontextmanager
async def deployed(
    servers: Servers, *, partitions: int = 16, environment: Mapping[str, str] | None = None
) -> AsyncIterator[Deployment]:
    """Make a deployment with one channel, whose bot echoes; nothing runs yet."""
    async with AsyncExitStack() as stack:
        url = await stack.enter_async_context(servers.database())
        settings = {
            "POSTBOTE_AMQP_URL": servers.vhost(),
            "POSTBOTE_DATABASE_URL": url,
            "POSTBOTE_PARTITIONS": str(partitions),
            "POSTBOTE_ADMIN_TOKEN": ADMIN,
            "POSTBOTE_WEBHOOK_ALLOW_NETWORKS": "127.0.0.0/8",
            **(environment or {}),
        }
        await run("migrate", settings)
        database = Database(url)
        stack.push_async_callback(database.close)
        channel, token = await Channels(database).create("bench", {"type": "echo"})
        yield Deployment(servers, settings, database, channel, token, partitions, stack)
