"""A receiver of webhooks, such as a client of ours runs: checks the signature, the token, the order and repeats."""

import asyncio
import hmac
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from aiohttp import web
from pydantic_core import from_json

from broker.signature import verify

#: A delivery is some KiB; what is larger is refused.
LARGEST_BODY = 1024 * 1024
#: Conversations and deliveries remembered, to tell repeats, gaps and what comes too late.
REMEMBERED = 10_000
#: How long a delivery may wait for its secret to be known here, and for its body, in seconds.
PATIENCE_S = 10.0

#: next: as it should be; gap: some before it have not come; late: after a later one; repeat: came before.
Order = Literal["next", "gap", "late", "repeat", "unknown"]


@dataclass(frozen=True, slots=True)
class Checks:
    """What the receiver found out about a delivery; a refusal is None where there is nothing to say against it."""

    signature: str | None = None
    token: str | None = None
    order: Order = "unknown"

    @property
    def good(self) -> bool:
        """Tell whether the delivery is what it claims to be."""
        return self.signature is None and self.token is None


@dataclass(frozen=True, slots=True)
class Received:
    """A delivery as it came in."""

    body: Mapping[str, Any]
    headers: Mapping[str, str]
    checks: Checks
    at: float = field(default_factory=time.time)


class Sequencer:
    """Tells by counters and ids what is next, what is a repeat, where some are missing, and what comes late."""

    def __init__(self) -> None:
        self._last: OrderedDict[str, int] = OrderedDict()
        self._seen: OrderedDict[str | tuple[str, int], None] = OrderedDict()

    def place(self, sender: object, counter: object, webhook_id: str | None = None) -> Order:
        """Place a message; the first that is seen of a conversation may have any counter."""
        if not isinstance(sender, str) or not isinstance(counter, int) or isinstance(counter, bool):
            return "unknown"
        # Both are asked: an id comes again on a retry, a counter also where a URL is registered twice.
        before = self._remember((sender, counter))
        if webhook_id is not None:
            before = self._remember(webhook_id) or before
        if before:
            return "repeat"
        last = self._last.get(sender)
        if last is not None and counter <= last:
            return "late"
        self._last[sender] = counter
        self._last.move_to_end(sender)
        if len(self._last) > REMEMBERED:
            self._last.popitem(last=False)
        return "next" if last is None or counter == last + 1 else "gap"

    def _remember(self, delivery: str | tuple[str, int]) -> bool:
        before = delivery in self._seen
        self._seen[delivery] = None
        self._seen.move_to_end(delivery)
        if len(self._seen) > 2 * REMEMBERED:
            self._seen.popitem(last=False)
        return before


class Receiver:
    """An HTTP server that hands each delivery to `on_message`. `expect` says which secrets and token are right.

    Where `room` says that there is none, senders are told to come again.
    What is refused for its signature or token is handed on as well, with the reason in its checks.
    """

    def __init__(
        self,
        on_message: Callable[[Received], None],
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        room: Callable[[], bool] = lambda: True,
    ) -> None:
        self._on_message = on_message
        self._room = room
        self._host = host
        self._port = port
        self._secrets: Sequence[str] = ()
        self._token: str | None = None
        self._sequence = Sequencer()
        self._runner: web.AppRunner | None = None
        self._ready = asyncio.Event()

    async def start(self) -> str:
        """Begin to listen, and return the address: `http://127.0.0.1:41234`. Raises OSError for a port in use
        or a host that is none of this machine's.
        """
        app = web.Application(client_max_size=LARGEST_BODY)
        app.router.add_post("/{path:.*}", self._receive)
        app.router.add_get("/{path:.*}", self._challenge)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, self._host, self._port).start()
        except OSError:
            await self.stop()
            raise
        host, port = self._runner.addresses[0][:2]
        return f"http://{f'[{host}]' if ':' in host else host}:{port}"

    def expect(self, secrets: Sequence[str], verify_token: str | None) -> None:
        """Say what deliveries must be signed with, and which token they must hold; None accepts any."""
        self._secrets = secrets
        self._token = verify_token
        self._ready.set()

    async def stop(self) -> None:
        """Stop listening."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def _receive(self, request: web.Request) -> web.Response:
        # A delivery can come in before its sender's secret is known here: its registration is still on its way.
        try:
            async with asyncio.timeout(PATIENCE_S):
                await self._ready.wait()
                raw = await request.read()
        except TimeoutError:
            return web.json_response({"error": "not ready, come again"}, status=503)
        if not self._room():
            return web.json_response({"error": "too much waits to be shown, come again"}, status=503)
        headers = {name.lower(): value for name, value in request.headers.items()}
        try:
            body = from_json(raw, allow_inf_nan=False)
        except ValueError:
            return web.json_response({"error": "the body is no JSON"}, status=400)
        if not isinstance(body, dict):
            return web.json_response({"error": "the body is no JSON object"}, status=400)
        signature = verify(self._secrets, headers, raw, now=time.time())
        right_token = self._token is None or self._knows(body.get("verifyToken"))
        token = None if right_token else "its verifyToken is another"
        checks = Checks(signature, token)
        if checks.good:
            sender, counter = body.get("senderId"), body.get("messageCounter")
            order = self._sequence.place(sender, counter, headers.get("webhook-id"))
            checks = replace(checks, order=order)
        self._on_message(Received(body, headers, checks))
        if not checks.good:
            return web.json_response({"error": signature or token}, status=401)
        return web.json_response({"status": "ok"})

    async def _challenge(self, request: web.Request) -> web.Response:
        # The check that Chatlayer makes of an offloading URL before it uses it; section 4 of the wire contract.
        if not self._knows(request.query.get("challenge.verifyToken")):
            return web.json_response({"error": "another verify token"}, status=401)
        return web.json_response({"status": "ok"})

    def _knows(self, token: object) -> bool:
        if self._token is None or not isinstance(token, str):
            return False
        return hmac.compare_digest(token.encode("utf-8", "replace"), self._token.encode("utf-8", "replace"))
