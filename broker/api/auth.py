"""Who may come in: the administrator by one token, a channel's client by the channel's own."""

import hmac

from aiohttp import web

from broker.api.doors import Doors
from broker.api.headers import only
from broker.api.problems import not_found, unauthorized
from broker.ids import token_hash
from broker.models.inbound import CHANNEL_ID
from broker.registry.channels import Door


def require_admin(request: web.Request, admin_token: str) -> None:
    """Return where the request carries the admin token; raises Problem 400 or 401 otherwise."""
    if not is_admin(_bearer(request), admin_token):
        raise unauthorized("The admin token is missing or wrong: send `Authorization: Bearer <admin token>`.")


async def require_channel(request: web.Request, doors: Doors, channel_id: str) -> Door:
    """Return a channel's door where the request carries its token; raises Problem 400, 401 or 404 otherwise."""
    door = await known_door(doors, channel_id)
    require_token(request, door)
    return door


def require_token(request: web.BaseRequest, door: Door) -> None:
    """Return where the request carries a token that opens the door; raises Problem 400 or 401 otherwise."""
    token = _bearer(request)
    # Equal hashes and not equal tokens are looked for, so the time that it takes tells nothing of a token.
    if token is None or token_hash(token) not in door.token_hashes:
        raise unauthorized(
            "The channel's access token is missing or wrong: send `Authorization: Bearer <access token>`."
        )


async def require_channel_or_admin(
    request: web.Request, doors: Doors, channel_id: str, admin_token: str
) -> None:
    """Return where the request carries the channel's access token or the admin token."""
    if is_admin(_bearer(request), admin_token):
        await known_door(doors, channel_id)
    else:
        await require_channel(request, doors, channel_id)


async def known_door(doors: Doors, channel_id: str) -> Door:
    """Return a channel's door; raises Problem 404 where there is no such channel."""
    # What cannot be a channel's id is not asked of the database, which would refuse some of it.
    door = await doors.of(channel_id) if CHANNEL_ID.fullmatch(channel_id) else None
    if door is None:
        raise not_found("channel")
    return door


def is_admin(token: str | None, admin_token: str) -> bool:
    """Tell whether a token is the admin token, in a time that does not depend on how much of it is right."""
    return token is not None and same(token, admin_token)


def same(given: str, expected: str) -> bool:
    """Compare two secrets in constant time, whatever characters were sent."""
    return hmac.compare_digest(given.encode("utf-8", "surrogateescape"), expected.encode())


def _bearer(request: web.BaseRequest) -> str | None:
    scheme, _, token = (only(request, "Authorization") or "").partition(" ")
    token = token.strip()
    return token if scheme.lower() == "bearer" and token else None
