"""What the HTTP API is made of, given to it by the composition root."""

from dataclasses import dataclass
from typing import Protocol

from aiohttp import web

from broker.api.doors import Doors
from broker.api.limits import RateLimit
from broker.news import ChannelNews
from broker.port import Broker
from broker.registry.channels import Channels
from broker.registry.database import Database
from broker.registry.dead_letters import DeadLetters
from broker.registry.deliveries import Deliveries
from broker.registry.history import History
from broker.registry.idempotency import IdempotencyKeys
from broker.registry.records import Attempt, Channel, Webhook
from broker.registry.redrive import Redrive
from broker.registry.webhooks import Webhooks
from broker.settings import Network, Settings


class Ping(Protocol):
    """Makes one attempt to deliver a test event to a webhook, now."""

    async def __call__(self, channel: Channel, webhook: Webhook, /) -> Attempt:
        """Make the attempt; what the endpoint does is in the answer, never raised."""
        ...


@dataclass(frozen=True, slots=True)
class Parts:
    """All that the API needs. Opened and closed by whoever composes it."""

    settings: Settings
    admin_token: str
    broker: Broker
    database: Database
    channels: Channels
    webhooks: Webhooks
    history: History
    deliveries: Deliveries
    dead_letters: DeadLetters
    redrive: Redrive
    idempotency_keys: IdempotencyKeys
    #: Tests a webhook; None where this process cannot.
    ping: Ping | None
    #: The types that a channel's bot may have.
    bot_types: frozenset[str]
    #: Networks that are not public and that webhooks may reach; the settings' own where this is None.
    allowed: tuple[Network, ...] | None = None

    @property
    def allowed_networks(self) -> tuple[Network, ...]:
        """Networks that are not public and that webhooks may reach all the same."""
        return self.settings.webhook_allow_networks if self.allowed is None else self.allowed


PARTS = web.AppKey("parts", Parts)
DOORS = web.AppKey("doors", Doors)
NEWS = web.AppKey("news", ChannelNews)
RATE_LIMIT = web.AppKey("rate_limit", RateLimit)
