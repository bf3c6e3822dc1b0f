"""The HTTP API, put together and served."""

import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from uuid import uuid4

from broker.api.app import Parts, make_app
from broker.api.connection import Limits
from broker.api.connections import listening
from broker.errors import SettingsError
from broker.registry.channels import Channels
from broker.registry.dead_letters import DeadLetters
from broker.registry.deliveries import Deliveries
from broker.registry.history import History
from broker.registry.idempotency import IdempotencyKeys
from broker.registry.records import Attempt, Channel, Webhook
from broker.registry.redrive import Redrive
from broker.registry.webhooks import Webhooks
from broker.settings import Network
from consumers.attempt import Poster, ping
from consumers.bots.catalogue import BOT_TYPES
from consumers.composition.base import Base


@asynccontextmanager
async def serving_api(base: Base, admin_token: str, allowed: tuple[Network, ...]) -> AsyncIterator[str]:
    """Serve the HTTP API; yields its address. Leaving lets the requests under way end first."""
    settings = base.settings
    async with AsyncExitStack() as stack:
        poster = Poster(timeout_s=settings.webhook_timeout_s, allowed=allowed)
        stack.push_async_callback(poster.close)
        app = make_app(
            Parts(
                settings=settings,
                admin_token=admin_token,
                broker=base.broker,
                database=base.database,
                channels=Channels(base.database),
                webhooks=Webhooks(base.database),
                history=History(base.database),
                deliveries=Deliveries(base.database),
                dead_letters=DeadLetters(base.database),
                idempotency_keys=IdempotencyKeys(base.database),
                redrive=Redrive(base.database, settings.partitions),
                ping=partial(send_ping, poster),
                bot_types=BOT_TYPES,
                allowed=allowed,
            )
        )
        limits = Limits(most=most_connections(settings.max_connections))
        shutdown_s = min(5.0, settings.shutdown_grace_s)
        try:
            host, port = await stack.enter_async_context(
                listening(app, settings.host, settings.port, limits, shutdown_s)
            )
        except OSError as error:
            raise SettingsError(
                f"The API cannot listen on {settings.host}, port {settings.port} ({error.strerror}): set "
                "POSTBOTE_HOST and POSTBOTE_PORT to an address of this machine and a port that is free."
            ) from None
        yield f"http://{f'[{host}]' if ':' in host else host}:{port}"


def most_connections(wanted: int) -> int:
    """Return how many connections may come in: no more than half of the files that this process may open."""
    if sys.platform == "win32":
        return wanted
    import resource

    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return wanted if files == resource.RLIM_INFINITY else min(wanted, max(1, files // 2))


async def send_ping(poster: Poster, channel: Channel, webhook: Webhook) -> Attempt:
    """Make one attempt to deliver a ping, now, past all queues."""
    response = ping(channel)
    # An id of its own each time: a receiver that drops repeats would drop the second ping.
    outcome = await poster.post(channel, webhook, response, str(uuid4()), 1)
    return outcome.attempt
