"""Heartbeats: workers of a kind tell each other over the broker that they live, join and leave.

Over the broker, and not the database: a worker that cannot reach the broker holds no partition anyway, and a
database that is away must not keep partitions from being handed over.
"""

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from uuid import uuid4

import structlog
from pydantic import BaseModel, ConfigDict, ValidationError

from broker.errors import BrokerUnavailable, SubscriptionLost
from broker.news import CHANGED
from broker.port import Broker
from consumers.roster import Roster
from consumers.serving import Stop

log = structlog.get_logger()

#: How often a worker says that it lives, in seconds.
BEAT_S = 1.0
#: How often to look whether somebody has fallen silent, or the roster is complete, in seconds.
LOOK_S = 0.1
#: Whoever heard nothing for so long, not even itself, listens anew: its queue may be gone without a word.
DEAF_AFTER_S = 5.0


class Note(BaseModel):
    """What is announced: of a worker, or of a channel that changed."""

    model_config = ConfigDict(extra="ignore")

    event: str
    kind: str = ""
    worker: str = ""
    channel: str = ""


class Heartbeats:
    """Keeps the roster of one kind of worker. `run` is its one task; `changed` follows it."""

    def __init__(
        self, broker: Broker, kind: str, on_channel: Callable[[str], None] = lambda channel: None
    ) -> None:
        self.me = uuid4().hex
        self._broker = broker
        self._kind = kind
        self._on_channel = on_channel
        self._roster = Roster(self.me, time.monotonic())
        self._live: frozenset[str] = frozenset()
        self._change = asyncio.Event()

    @property
    def workers(self) -> frozenset[str]:
        """Who lives, as it was last told; empty until that is known."""
        return self._live

    @property
    def number(self) -> int:
        """How many live, at least 1."""
        return max(1, len(self._live))

    async def changed(self, known: frozenset[str]) -> frozenset[str]:
        """Wait until others live than those who are known, and return them."""
        while self._live == known:
            self._change.clear()
            await self._change.wait()
        return self._live

    async def run(self, stop: Stop) -> None:
        """Tell and listen until told to stop; then say goodbye, before what is in flight is finished."""
        tasks = [
            asyncio.create_task(one) for one in (stop.wait(), self._listen(), self._beat(), self._look())
        ]
        try:
            ended, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in ended:
                task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            with suppress(BrokerUnavailable):
                await self._tell("leaving")

    async def _listen(self) -> None:
        while True:
            with suppress(SubscriptionLost, BrokerUnavailable, TimeoutError):
                async with self._broker.listen() as announcements:
                    with suppress(BrokerUnavailable):
                        await self._tell("joining")
                    while True:
                        async with asyncio.timeout(DEAF_AFTER_S):
                            body = await announcements.receive()
                        await self._hear(body)
            await asyncio.sleep(LOOK_S)

    async def _hear(self, body: bytes) -> None:
        note = _read(body)
        if note is None:
            return
        if note.event == CHANGED:
            self._on_channel(note.channel)
        if note.kind != self._kind or not note.worker:
            return
        if note.event == "leaving" and note.worker != self.me:
            self._roster.leave(note.worker)
        else:
            self._roster.hear(note.worker, time.monotonic())
        if note.event == "joining" and note.worker != self.me:
            # So that it knows of us at once.
            with suppress(BrokerUnavailable):
                await self._tell("alive")
        self._update()

    async def _beat(self) -> None:
        while True:
            with suppress(BrokerUnavailable):
                await self._tell("alive")
            await asyncio.sleep(BEAT_S)

    async def _look(self) -> None:
        while True:
            self._update()
            await asyncio.sleep(LOOK_S)

    def _update(self) -> None:
        live = self._roster.live(time.monotonic())
        if live is not None and live != self._live:
            log.info("workers.changed", kind=self._kind, workers=len(live))
            self._live = live
            self._change.set()

    async def _tell(self, event: str) -> None:
        note = Note(event=event, kind=self._kind, worker=self.me)
        await self._broker.announce(note.model_dump_json(exclude_defaults=True).encode())


class Alone:
    """The roster of a worker that is the only one, as with the embedded broker; it hears of changed channels too."""

    me = "alone"
    workers = frozenset({"alone"})
    number = 1

    def __init__(self, broker: Broker, on_channel: Callable[[str], None] = lambda channel: None) -> None:
        self._broker = broker
        self._on_channel = on_channel

    async def changed(self, known: frozenset[str]) -> frozenset[str]:
        """Return the one worker, and never again."""
        if known == self.workers:
            await asyncio.get_running_loop().create_future()
        return self.workers

    async def run(self, stop: Stop) -> None:
        """Listen until told to stop."""
        await stop.unless(self._listen())
        await stop.wait()

    async def _listen(self) -> None:
        # Lost only where the broker was closed, which is when all stops.
        with suppress(SubscriptionLost):
            async with self._broker.listen() as announcements:
                while True:
                    note = _read(await announcements.receive())
                    if note is not None and note.event == CHANGED:
                        self._on_channel(note.channel)


def _read(body: bytes) -> Note | None:
    try:
        return Note.model_validate_json(body)
    except ValidationError:
        # Whoever may publish here is one of us, perhaps of another version.
        return None
