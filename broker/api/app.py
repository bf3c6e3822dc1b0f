"""The HTTP API: which paths there are, who may use them, and what every request goes through."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import structlog
from aiohttp import web

from broker.api.bodies import BODY_ROOM, LARGEST_BODY
from broker.api.body_room import BodyRoom
from broker.api.channels import ChannelsView, ChannelView
from broker.api.connection import HANDLER_ARGS, in_hand
from broker.api.counter import COUNTER, Counter
from broker.api.description import DESCRIPTION, Description, openapi
from broker.api.doors import Doors
from broker.api.health import READINESS, Healthz, Readiness, Readyz
from broker.api.history import (
    DeadLettersView,
    DeadLetterView,
    DeliveriesView,
    DeliveryView,
    ResponsesView,
    TurnsView,
)
from broker.api.limits import RateLimit, show_rate
from broker.api.messages import LegacyMessages, Messages
from broker.api.parts import DOORS, NEWS, PARTS, RATE_LIMIT, Parts, Ping
from broker.api.patience import LEFT_BEHIND
from broker.api.problems import rewrite
from broker.api.receipt import ALWAYS, SERVER
from broker.api.redrive import (
    DeadLetterRedriveView,
    DeadLettersRedriveView,
    DeliveryRedriveView,
    WebhookRedriveView,
)
from broker.api.webhooks import ChannelWebhooksView, WebhookSecretView, WebhookTestView, WebhookView
from broker.errors import RegistryUnavailable
from broker.news import ChannelNews, hear_of_changes
from broker.registry.idempotency import IdempotencyKeys

log = structlog.get_logger()

__all__ = ["Parts", "Ping", "make_app"]

CHANNEL = "/v1/channels/{channel_id}"
CONVERSATION = CHANNEL + "/conversations/{user_id:[^/]+}"
WEBHOOK = "/v1/webhooks/{webhook_id}"
DELIVERY = "/v1/deliveries/{delivery_id}"
DEAD_LETTER = "/v1/dead-letters/{letter_id}"

ROUTES = [
    # The doors: a channel's access token, or the verify token in the body.
    web.view("/v1/channels/webhook/{channel_id}/messages", Messages),
    web.view("/api/webhookMessage/{channel_id}", LegacyMessages),
    # Administration: the admin token.
    web.view("/v1/channels", ChannelsView),
    web.view(CHANNEL, ChannelView),
    web.view(CHANNEL + "/webhooks", ChannelWebhooksView),
    web.view(WEBHOOK, WebhookView),
    web.view(WEBHOOK + "/test", WebhookTestView),
    web.view(WEBHOOK + "/rotate-secret", WebhookSecretView),
    web.view(WEBHOOK + "/redrive", WebhookRedriveView),
    web.view(CHANNEL + "/deliveries", DeliveriesView),
    web.view(DELIVERY, DeliveryView),
    web.view(DELIVERY + "/redrive", DeliveryRedriveView),
    web.view("/v1/dead-letters", DeadLettersView),
    web.view("/v1/dead-letters/redrive", DeadLettersRedriveView),
    web.view(DEAD_LETTER, DeadLetterView),
    web.view(DEAD_LETTER + "/redrive", DeadLetterRedriveView),
    web.view(CONVERSATION + "/turns", TurnsView),
    # The channel's access token, or the admin token.
    web.view(CONVERSATION + "/responses", ResponsesView),
    # Open to all.
    web.view("/healthz", Healthz),
    web.view("/readyz", Readyz),
    web.get("/openapi.json", openapi),
]

#: How often old idempotency keys are cleared away, in seconds.
CLEAR_EVERY_S = 600.0


def make_app(parts: Parts) -> web.Application:
    """Make the application; whoever serves it opens the parts before and closes them after."""
    app = web.Application(middlewares=[in_hand], client_max_size=LARGEST_BODY, handler_args=HANDLER_ARGS)
    app[PARTS] = parts
    app[BODY_ROOM] = BodyRoom(parts.settings.in_hand_bytes)
    app[DOORS] = Doors(parts.channels)
    app[LEFT_BEHIND] = set()
    app[NEWS] = ChannelNews(parts.broker)
    app[RATE_LIMIT] = RateLimit(parts.settings.rate_limit)
    app[READINESS] = Readiness(parts.broker, parts.database)
    app[COUNTER] = Counter(app[DOORS], app[RATE_LIMIT], parts.broker, parts.settings.partitions)
    app.add_routes(ROUTES)
    app[DESCRIPTION] = Description(app)
    app.on_response_prepare.append(show_rate)
    app.on_response_prepare.append(sign_off)
    app.cleanup_ctx.append(_close_doors)
    app.cleanup_ctx.append(_hear_news)
    app.cleanup_ctx.append(_clear_keys)
    return app


async def sign_off(request: web.Request, response: web.StreamResponse) -> None:
    """Write the headers that every answer has; what no middleware saw is made a problem."""
    if isinstance(response, web.HTTPException) and response.status >= 400:
        rewrite(request, response)
    headers = response.headers
    headers["Server"] = SERVER
    for name, value in ALWAYS.items():
        headers.setdefault(name, value)


async def _close_doors(app: web.Application) -> AsyncIterator[None]:
    yield
    await app[READINESS].close()
    await app[DOORS].close()
    await app[NEWS].close()
    left: set[asyncio.Task[Any]] = app[LEFT_BEHIND]
    while left:
        await asyncio.wait(left)


async def _hear_news(app: web.Application) -> AsyncIterator[None]:
    hearing = asyncio.create_task(
        hear_of_changes(app[PARTS].broker, app[DOORS].forget), name="channel-news-heard"
    )
    yield
    hearing.cancel()
    await asyncio.gather(hearing, return_exceptions=True)


async def _clear_keys(app: web.Application) -> AsyncIterator[None]:
    clearing = asyncio.create_task(_clear_every_while(app[PARTS].idempotency_keys))
    yield
    clearing.cancel()
    await asyncio.gather(clearing, return_exceptions=True)


async def _clear_every_while(keys: IdempotencyKeys) -> None:
    while True:
        await asyncio.sleep(CLEAR_EVERY_S)
        try:
            await keys.clear()
        except RegistryUnavailable:
            # There is no hurry: an old key names nothing, cleared away or not.
            continue
        except Exception:
            log.exception("api.keys_not_cleared")
