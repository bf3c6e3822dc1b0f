"""The stage of a fault test: servers, processes, channels with receivers, and the breaking of any of them."""

import asyncio
import json
import os
import signal
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import aiohttp
import asyncpg
from load import Channel, Load
from processes import ADMIN, Api, Process
from receivers import Receiver
from report import REPORT
from servers.process import free_port
from verdict import Strike, Subscriber, Verdict, hold, judge

T = TypeVar("T")

PARTITIONS = 8
#: Small, so that what may be repeated after a death is few.
PREFETCH = 50
#: How long everything may take to arrive after the load and the fault are over, in seconds.
ARRIVAL_S = 60.0

#: Servers are started here: what dies with the thread that started it has to be started by one that stays.
_HANDS = ThreadPoolExecutor(max_workers=1, thread_name_prefix="servers")


async def by_hand(work: Callable[[], T]) -> T:
    """Do what blocks, such as starting a server or rabbitmqctl, while the load flows on."""
    return await asyncio.get_running_loop().run_in_executor(_HANDS, work)


class Worker(Process):
    """A process of Postbote that a test may hold up, and measure."""

    @property
    def running(self) -> bool:
        """True while it has not ended."""
        return self._child is not None and self._child.returncode is None

    def freeze(self) -> None:
        """Make it stand still with its connections open."""
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        os.kill(self.pid, signal.SIGCONT)

    @property
    def ports(self) -> set[int]:
        """The local ports of its TCP connections."""
        entries = [entry.readlink() for entry in Path(f"/proc/{self.pid}/fd").iterdir()]
        sockets = {str(entry)[8:-1] for entry in entries if str(entry).startswith("socket:[")}
        lines = [line.split() for line in Path(f"/proc/{self.pid}/net/tcp").read_text().splitlines()[1:]]
        return {int(line[1].rpartition(":")[2], 16) for line in lines if line[9] in sockets}

    @property
    def memory_mb(self) -> float:
        """What it holds in memory."""
        pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


@dataclass
class Stage:
    """One deployment under fault."""

    environment: dict[str, str]
    folder: Path
    session: aiohttp.ClientSession
    workers: list[Worker] = field(default_factory=list)
    bases: list[str] = field(default_factory=list)
    channels: list[Channel] = field(default_factory=list)
    subscribers: list[Subscriber] = field(default_factory=list)
    strikes: list[Strike] = field(default_factory=list)
    #: What runs each process, as in `Process`.
    before: Sequence[str] = ()

    @property
    def api(self) -> Api:
        """The first API process, as an administrator uses it."""
        return Api(self.session, self.bases[0])

    async def start(self, command: str, **environment: str) -> Worker:
        """Start a process, with settings of its own where some are given."""
        more = dict(environment)
        if command == "api":
            port = free_port()
            more["POSTBOTE_PORT"] = str(port)
            self.bases.append(f"http://127.0.0.1:{port}")
        log = self.folder / f"{len(self.workers)}-{command}.log"
        worker = Worker(command, {**self.environment, **more}, log, self.before)
        self.workers.append(worker)
        await worker.start()
        return worker

    async def start_all(self, *commands: str) -> list[Worker]:
        """Start several processes at once: the first API alone, for it makes the queues."""
        first = await self.start(commands[0])
        return [first, *await asyncio.gather(*(self.start(command) for command in commands[1:]))]

    async def channel(
        self, *receivers: Receiver, bot: str = "echo", text: str | None = None, says: int = 1
    ) -> Channel:
        """Make a channel with a webhook for each receiver."""
        channel_id, token = await self.api.channel(bot)
        channel = Channel(channel_id, token, text, says)
        self.channels.append(channel)
        for receiver in receivers:
            await self.webhook(channel, receiver)
        return channel

    async def webhook(
        self, channel: Channel, receiver: Receiver, *, broken: bool = False, **more: object
    ) -> Subscriber:
        """Register a receiver."""
        body = {"url": receiver.url, **more}
        made = await self.api.admin("POST", f"/v1/channels/{channel.id}/webhooks", body)
        receiver.secret = str(made["secret"])
        subscriber = Subscriber(receiver, channel, str(made["id"]), broken)
        self.subscribers.append(subscriber)
        return subscriber

    async def schedule(self, subscriber: Subscriber, waits: Sequence[float]) -> None:
        """Set the waits between the attempts of a webhook, in seconds."""
        connection = await asyncpg.connect(self.environment["POSTBOTE_DATABASE_URL"], timeout=10)
        try:
            await connection.execute(
                "UPDATE webhooks SET retry_schedule = $1 WHERE id = $2",
                json.dumps(waits),
                subscriber.webhook_id,
            )
            await connection.execute(
                "UPDATE channels SET revision = revision + 1 WHERE id = $1", subscriber.channel.id
            )
        finally:
            await connection.close(timeout=10)

    def load(self, *channels: Channel, users: int = 200, rate: float = 120.0, in_turn: bool = False) -> Load:
        """Make a load on channels, by default on all."""
        return Load(
            self.session, self.bases, channels or self.channels, users=users, rate=rate, in_turn=in_turn
        )

    @contextmanager
    def strike(self, what: str) -> Iterator[None]:
        """Note when something is broken, from entering to leaving."""
        began = time.monotonic()
        try:
            yield
        finally:
            self.strikes.append(Strike(what, began, time.monotonic()))

    async def arrivals(self, load: Load, more: int, within_s: float = ARRIVAL_S) -> None:
        """Wait until every receiver that is not broken accepted so many more messages than at this moment."""
        healthy = [subscriber.receiver for subscriber in self.subscribers if not subscriber.broken]
        goals = [(receiver, receiver.distinct + more) for receiver in healthy]
        await self.wait_for(lambda: all(receiver.distinct >= goal for receiver, goal in goals), within_s)
        short = [f"{receiver.name}: {receiver.distinct} of {goal}" for receiver, goal in goals]
        assert all(receiver.distinct >= goal for receiver, goal in goals), (
            f"not within {within_s:g} s: {short}"
        )

    async def wait_for(self, condition: Callable[[], bool], within_s: float) -> bool:
        """Wait for what happens in other processes, up to a time; tells whether it did."""
        deadline = time.monotonic() + within_s
        while not condition():
            if time.monotonic() > deadline:
                return False
            await asyncio.sleep(0.05)  # what is waited for happens in another process, which sends no event
        return True

    async def all_there(
        self, load: Load, subscribers: Sequence[Subscriber], within_s: float, spared: Sequence[str] = ()
    ) -> bool:
        """Wait until receivers have all that answers a load's messages, up to a time; tells whether they do."""
        wanted = {
            channel: sum(
                channel.says
                for user, messages in load.messages.items()
                if load.channel_of(user) is channel
                for message in messages
                if message.id and not any(text in message.text for text in spared)
            )
            for channel in load.channels
        }

        def complete(subscriber: Subscriber) -> bool:
            receiver, number = subscriber.receiver, wanted[subscriber.channel]
            # Counting users is dear, and of no use before there are enough of all together.
            return receiver.distinct >= number and receiver.distinct_of(load.messages) >= number

        return await self.wait_for(lambda: all(map(complete, subscribers)), within_s)

    async def judge(
        self,
        fault: str,
        load: Load,
        *,
        most_repeated: int = 0,
        within_s: float = ARRIVAL_S,
        spared: Sequence[str] = (),
        judged: Callable[[Subscriber], bool] = lambda subscriber: True,
        notes: dict[str, float | int | str] | None = None,
    ) -> Verdict:
        """Wait until all arrived, compare, report, and hold the promise."""
        subscribers = [subscriber for subscriber in self.subscribers if judged(subscriber)]
        there = await self.all_there(load, subscribers, within_s, spared)
        verdict = await judge(fault, self.api, load, subscribers, self.strikes, spared=spared)
        if not there:
            verdict.blame(f"not all within {within_s:g} s; deliveries by status: {await self.statuses()}")
        verdict.notes.update(notes or {})
        REPORT.add(verdict)
        hold(verdict, most_repeated=most_repeated)
        return verdict

    async def statuses(self) -> dict[str, int]:
        """Count the deliveries in the database by webhook and status."""
        connection = await asyncpg.connect(self.environment["POSTBOTE_DATABASE_URL"], timeout=10)
        try:
            rows = await connection.fetch(
                "SELECT webhook_id, status, count(*) AS number FROM deliveries GROUP BY 1, 2"
            )
        finally:
            await connection.close(timeout=10)
        names = {subscriber.webhook_id: subscriber.receiver.name for subscriber in self.subscribers}
        return {
            f"{names.get(row['webhook_id'], row['webhook_id'])} {row['status']}": row["number"]
            for row in rows
        }

    def most_in_flight(self, deaths: int) -> int:
        """Bound what may come twice after so many deaths of a process or a connection."""
        return deaths * PREFETCH * PARTITIONS * max(1, len(self.subscribers))

    async def end(self) -> None:
        """Kill what still runs."""
        for worker in self.workers:
            if worker.running:
                await worker.kill()


@asynccontextmanager
async def staged(amqp_url: str, database_url: str, folder: Path) -> AsyncIterator[Stage]:
    """Set a stage on a broker and a migrated database; nothing is started yet."""
    environment = {
        "POSTBOTE_ADMIN_TOKEN": ADMIN,
        "POSTBOTE_AMQP_URL": amqp_url,
        "POSTBOTE_DATABASE_URL": database_url,
        "POSTBOTE_WEBHOOK_ALLOW_NETWORKS": "127.0.0.0/8",
        "POSTBOTE_PARTITIONS": str(PARTITIONS),
        "POSTBOTE_PREFETCH": str(PREFETCH),
        "POSTBOTE_LOG_LEVEL": "debug",
    }
    # Users share nothing: whoever waits for an answer keeps no other from asking.
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector) as session:
        stage = Stage(environment, folder, session)
        try:
            yield stage
        finally:
            await stage.end()
