"""A receiver of webhooks, such as a client of ours runs: checks the signature, the token, the order and repeats."""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from aiohttp import web
from pydantic_core import from_json

from broker.signature import verify

#: A delivery is some KiB; what is larger is refused.
LARGEST_BODY = 1024 * 1024
#: Conversations and ids remembered, to tell repeats and gaps.
REMEMBERED = 10_000

Order = Literal["next", "repeat", "gap", "unknown"]


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
    """Tells by the counters of each conversation what is next, what is a repeat, and where some are missing."""

    def __init__(self) -> None:
        self._last: OrderedDict[str, int] = OrderedDict()

    def place(self, sender: object, counter: object) -> Order:
        """Place a message; the first that is seen of a conversation may have any counter."""
        if not isinstance(sender, str) or not isinstance(counter, int):
            return "unknown"
        last = self._last.get(sender)
        if last is not None and counter <= last:
            return "repeat"
        self._last[sender] = counter
        self._last.move_to_end(sender)
        if len(self._last) > REMEMBERED:
            self._last.popitem(last=False)
        return "next" if last is None or counter == last + 1 else "gap"


class Receiver:
    """An HTTP server that hands each delivery to `on_message`. `expect` says which secrets and token are right."""

    def __init__(
        self, on_message: Callable[[Received], None], *, host: str = "127.0.0.1", port: int = 0
    ) -> None:
        self._on_message = on_message
        self._host = host
        self._port = port
        self._secrets: Sequence[str] = ()
        self._token: str | None = None
        self._sequence = Sequencer()
        self._runner: web.AppRunner | None = None
        self._ready = asyncio.Event()

    async def start(self) -> str:
        """Begin to listen, and return the address: `http://127.0.0.1:41234`. Raises OSError for a port in use."""
        app = web.Application(client_max_size=LARGEST_BODY)
        app.router.add_post("/{path:.*}", self._receive)
        app.router.add_get("/{path:.*}", self._challenge)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        await self._runner.setup()
        await web.TCPSite(self._runner, self._host, self._port).start()
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
        async with asyncio.timeout(10):
            await self._ready.wait()
        raw = await request.read()
        headers = {name.lower(): value for name, value in request.headers.items()}
        try:
            body = from_json(raw)
        except ValueError:
            return web.json_response({"error": "the body is no JSON"}, status=400)
        if not isinstance(body, dict):
            return web.json_response({"error": "the body is no JSON object"}, status=400)
        signature = verify(self._secrets, headers, raw, now=time.time())
        wrong_token = self._token is not None and body.get("verifyToken") != self._token
        token = "its verifyToken is another" if wrong_token else None
        good = signature is None and token is None
        order = self._sequence.place(body.get("senderId"), body.get("messageCounter")) if good else "unknown"
        received = Received(body, headers, Checks(signature, token, order))
        self._on_message(received)
        if not good:
            return web.json_response({"error": signature or token}, status=401)
        return web.json_response({"status": "ok"})

    async def _challenge(self, request: web.Request) -> web.Response:
        # The check that Chatlayer makes of an offloading URL before it uses it; section 4 of the wire contract.
        given = request.query.get("challenge.verifyToken")
        if given is None or self._token is None or given != self._token:
            return web.json_response({"error": "another verify token"}, status=401)
        return web.json_response({"status": "ok"})
