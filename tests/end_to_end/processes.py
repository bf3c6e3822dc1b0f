"""Postbote's processes as children of a test, and a receiver that keeps what it gets."""

import asyncio
import os
import signal
import sys
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import aiohttp
from aiohttp import web

from broker.signature import verify

ADMIN = "test-admin-token"
#: How long a process may take to be ready, and how long deliveries may take to come in, in seconds.
READY_S = 20.0
ARRIVAL_S = 60.0


class Process:
    """One `postbote` command, its output in a file."""

    def __init__(
        self, command: str, environment: Mapping[str, str], log: Path, before: Sequence[str] = ()
    ) -> None:
        self.command = command
        #: What runs it: a command that ends by becoming the one that is given to it.
        self._before = before
        self._environment = environment
        self._log = log
        self._child: asyncio.subprocess.Process | None = None

    async def start(self) -> "Process":
        """Start it, and wait until it says that it works."""
        clean = {key: value for key, value in os.environ.items() if not key.startswith("POSTBOTE_")}
        with self._log.open("ab") as out:
            started = out.tell()
            self._child = await asyncio.create_subprocess_exec(
                *self._before,
                sys.executable,
                "-m",
                "consumers.cli.main",
                self.command,
                env={**clean, **self._environment},
                stdout=out,
                stderr=out,
            )
        if self.command != "migrate":
            await until(
                lambda: self._says_ready(started), READY_S, f"{self.command} is ready:\n{self.output()}"
            )
        return self

    def output(self) -> str:
        """Return all that it wrote."""
        return self._log.read_text()

    async def finish(self) -> int:
        """Wait for its end, and return its exit code."""
        assert self._child is not None
        return await asyncio.wait_for(self._child.wait(), READY_S)

    async def stop(self, number: signal.Signals = signal.SIGTERM, within_s: float = 12.0) -> int:
        """Send it a signal and wait for its end; returns its exit code."""
        assert self._child is not None
        with suppress(ProcessLookupError):
            self._child.send_signal(number)
        return await asyncio.wait_for(self._child.wait(), within_s)

    async def kill(self) -> None:
        """End it as a crash would."""
        await self.stop(signal.SIGKILL)

    def _says_ready(self, started: int) -> bool:
        assert self._child is not None
        said = self._log.read_bytes()[started:].decode()
        assert self._child.returncode is None, f"{self.command} ended at once:\n{said}"
        return any(sign in said for sign in ("api.listening", ".working", "Ctrl-C stops it"))


class Receiver:
    """Keeps the message counters that come in, by URL path and user; answers as it is told."""

    def __init__(self) -> None:
        self.got: dict[str, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
        self.texts: dict[str, list[str]] = defaultdict(list)
        self.unsigned = 0
        self.secrets: dict[str, str] = {}
        self.answer: Callable[[str], int] = lambda path: 200
        self.url = ""

    async def receive(self, request: web.Request) -> web.Response:
        """Take one delivery."""
        body = await request.read()
        path = request.path
        status = self.answer(path)
        if status < 300:
            headers = {name.lower(): value for name, value in request.headers.items()}
            timestamp = float(headers["webhook-timestamp"])
            if verify([self.secrets[path]], headers, body, now=timestamp) is not None:
                self.unsigned += 1
            said = await request.json()
            self.got[path][said["senderId"]].append(said["messageCounter"])
            self.texts[said["senderId"]].append(str(said["message"].get("text")))
        return web.Response(status=status)

    def first_arrivals(self, path: str, user: str) -> list[int]:
        """Return a user's message counters at a URL in the order of their first arrival."""
        return list(dict.fromkeys(self.got[path][user]))

    def distinct(self, path: str) -> int:
        """Count the messages that came to a URL, each once."""
        return sum(len(set(counters)) for counters in self.got[path].values())

    def beyond(self, path: str, count: int) -> Callable[[], bool]:
        """Return what tells whether more than so many messages came to a URL."""
        return lambda: self.distinct(path) > count

    def repeats(self, path: str) -> int:
        """Count what came more than once."""
        return sum(len(counters) - len(set(counters)) for counters in self.got[path].values())


@asynccontextmanager
async def open_receiver() -> AsyncIterator[Receiver]:
    """Open a receiver on a free port."""
    receiver = Receiver()
    app = web.Application()
    app.router.add_post("/{path:.*}", receiver.receive)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    receiver.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield receiver
    finally:
        await runner.cleanup()


class Api:
    """The API as an administrator and a client use it."""

    def __init__(self, session: aiohttp.ClientSession, base: str) -> None:
        self.session = session
        self.base = base

    async def admin(self, method: str, path: str, body: object = None) -> dict[str, object]:
        """Call as the administrator, and return the answer's JSON."""
        headers = {"Authorization": f"Bearer {ADMIN}"}
        async with self.session.request(method, self.base + path, json=body, headers=headers) as answer:
            assert answer.status < 300, await answer.text()
            found: dict[str, object] = await answer.json()
            return found

    async def channel(self, bot: str = "echo") -> tuple[str, str]:
        """Create a channel, and return its id and access token."""
        made = await self.admin("POST", "/v1/channels", {"name": "test", "bot": {"type": bot}})
        return str(made["id"]), str(made["accessToken"])

    async def webhook(self, channel: str, receiver: Receiver, path: str, **more: object) -> str:
        """Register a path of the receiver as a webhook, and return its id."""
        body = {"url": receiver.url + path, **more}
        made = await self.admin("POST", f"/v1/channels/{channel}/webhooks", body)
        receiver.secrets[path] = str(made["secret"])
        return str(made["id"])

    async def say(self, channel: str, token: str, user: str, text: str) -> int:
        """Post a message as a user, and return the status."""
        async with self.session.post(
            f"{self.base}/v1/channels/webhook/{channel}/messages",
            json={"message": {"textMessage": {"text": text}}, "user": {"id": user}},
            headers={"Authorization": f"Bearer {token}"},
        ) as answer:
            await answer.read()
            return answer.status


async def until(condition: Callable[[], bool], within_s: float, what: str) -> None:
    """Wait for a condition that another process brings about, which sends us no event; fails after a time."""
    try:
        async with asyncio.timeout(within_s):
            while not condition():  # noqa: ASYNC110 - what is waited for happens in another process
                await asyncio.sleep(0.02)
    except TimeoutError:
        raise AssertionError(f"not within {within_s:g} s: {what}") from None
