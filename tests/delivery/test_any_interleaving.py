"""Never out of order, never lost: whatever endpoints answer, workers die, and partitions move.

A state machine plays two workers on one partition. A model keeps what the broker and the registry hold; lanes,
gates, breaker, retry, parking and drainer are the real ones. Time jumps, so nothing is waited for.
"""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import structlog
from backlog_model import BacklogModel
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule
from jumping_loop import JumpingLoop

from broker.ids import delivery_id
from broker.models.records import BotResponse
from broker.port import Envelope
from broker.registry.records import Attempt, Channel, ChannelWebhooks, Delivery, Webhook
from consumers.attempt import Outcome
from consumers.backlog import Drainer
from consumers.breaker import Tuning
from consumers.busyness import Busyness
from consumers.delivering import Deliverer
from consumers.delivery_worker import Delivering, DeliverySession
from consumers.gates import Gates
from consumers.parking import Parking
from consumers.retry import Policy, Schedule
from consumers.serving import Stop
from consumers.standing import Standing

AT = datetime(2026, 1, 1, tzinfo=UTC)
CHANNEL = Channel("ch", "test", {"type": "echo"}, "token", 1, AT)
HOOKS = ("wh_a", "wh_b")
USERS = ("ada", "bob", "cy")


def webhook(name: str, enabled: bool) -> Webhook:
    secret = "whsec_c2VjcmV0"
    return Webhook(
        name, "ch", "https://x.example", None, ["response.#"], {}, secret, None, None, enabled, None, None, AT
    )


class World:
    """What all workers see: the queue, the registry's model, and the endpoints."""

    def __init__(self) -> None:
        self.store = BacklogModel()
        self.queue: list[Envelope] = []
        self.arrived: dict[tuple[str, str], list[int]] = {}
        self.trying: list[tuple[asyncio.Future[tuple[int, float | None]], str, BotResponse]] = []
        self.healed = False

    def known(self, channel_id: str, revision: int = 0) -> ChannelWebhooks | None:
        # Known at once or not: both ways are gone.
        return self._webhooks() if len(self.store.rows) % 2 else None

    async def of_channel(self, channel_id: str, revision: int = 0) -> ChannelWebhooks:
        await asyncio.sleep(0)
        return self._webhooks()

    def fresh(self, channel_id: str) -> ChannelWebhooks | None:
        return self.known(channel_id)

    async def refreshed(self, channel_id: str) -> ChannelWebhooks:
        return await self.of_channel(channel_id)

    def _webhooks(self) -> ChannelWebhooks:
        return ChannelWebhooks(CHANNEL, [webhook(name, name not in self.store.disabled) for name in HOOKS])

    def forget(self, channel_id: str) -> None:
        """Nothing is cached here."""

    async def post(
        self, channel: Channel, webhook: Webhook, response: BotResponse, delivery_id: str, number: int
    ) -> Outcome:
        status, retry_after = 200, None
        if not self.healed:
            answer: asyncio.Future[tuple[int, float | None]] = asyncio.get_running_loop().create_future()
            self.trying.append((answer, webhook.id, response))
            status, retry_after = await answer
        if status == 200:
            self.arrived.setdefault((webhook.id, response.user_id), []).append(response.message_counter)
        return Outcome(Attempt(number, AT, 1, status, None), retry_after)

    async def disable(self, webhook: Webhook, reason: str) -> None:
        self.store.disabled.add(webhook.id)

    async def note_failing(self, webhook_id: str, since: datetime) -> None:
        """Not of interest here."""

    async def note_delivered(self, webhook_id: str) -> None:
        """Not of interest here."""


class Log:
    """The log of what was delivered, written a little later."""

    def __init__(self, store: BacklogModel) -> None:
        self._store = store
        self.writing: set[asyncio.Task[None]] = set()

    def add(self, delivery: Delivery) -> None:
        task = asyncio.create_task(self._store.log([delivery]))
        self.writing.add(task)
        task.add_done_callback(self.writing.discard)


class Hold:
    """One worker's hold on the partition."""

    def __init__(self, world: World, shared: Delivering) -> None:
        self._world = world
        self.session = DeliverySession(self, shared, 0)  # type: ignore[arg-type]
        self.taken = 0
        self.over = False

    def ack(self, envelope: Envelope) -> None:
        if not self.over:
            self._world.queue = [one for one in self._world.queue if one.id != envelope.id]
            self.taken -= 1

    async def take(self, prefetch: int) -> None:
        new = self._world.queue[self.taken : prefetch]
        self.taken += len(new)
        if new:
            await self.session.take(new)


class Worker:
    """A delivery worker: its gates, its drainer, and at times the partition."""

    def __init__(self, world: World) -> None:
        loop = asyncio.get_running_loop()
        self.stop = Stop(1.0)
        gates = Gates(
            most=4, most_each=2, clock=loop.time, tuning=Tuning(window=6, least=3, open_s=2, longest_open_s=8)
        )
        seen: Any = world
        self.log = Log(world.store)
        standing = Standing(seen, world.store, seen, seen, timedelta(days=5))
        schedule = Schedule(head=(0.5, 2.0), tail=(60.0, 300.0, 1800.0))
        deliverer = Deliverer(seen, world, gates, seen, standing, Policy(schedule, 1e9))
        parking = Parking(world.store)
        self.shared = Delivering(
            seen,
            seen,
            deliverer,
            parking,
            world.store,
            self.log,  # type: ignore[arg-type]
            gates,
            Busyness(),
            12,
            20_000,
        )
        self.tasks = [
            asyncio.create_task(Drainer(parking, deliverer, gates, self.stop).run()),
            asyncio.create_task(standing.run(self.stop)),
        ]

    async def die(self) -> None:
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)


@settings(max_examples=40, stateful_step_count=50, deadline=None)
class AnyInterleaving(RuleBasedStateMachine):
    """Two workers, one partition, two webhooks, three users."""

    def __init__(self) -> None:
        super().__init__()
        structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
        self.loop = JumpingLoop()
        self.said = dict.fromkeys(USERS, 0)

    def do(self, what: Any) -> Any:
        return self.loop.run_until_complete(what)

    async def _settle_down(self, turns: int = 30) -> None:
        for _ in range(turns):
            await asyncio.sleep(0)

    @initialize()
    def open(self) -> None:
        async def begin() -> None:
            self.world = World()
            self.workers = [Worker(self.world), Worker(self.world)]
            self.hold = Hold(self.world, self.workers[0].shared)

        self.do(begin())

    @rule(users=st.lists(st.sampled_from(USERS), min_size=1, max_size=6))
    def the_bot_says(self, users: Sequence[str]) -> None:
        for user in users:
            self.said[user] += 1
            response = BotResponse(
                id=f"{user}-{self.said[user]}",
                channel_id="ch",
                user_id=user,
                in_reply_to="m",
                index=1,
                count=1,
                message_counter=self.said[user],
                kind="text",
                message={"text": "x"},
                created_at=AT,
                channel_revision=1,
            )
            self.world.queue.append(Envelope(response.id, response.model_dump_json().encode()))

        async def take() -> None:
            await self.hold.take(10)
            await self._settle_down()

        self.do(take())

    @precondition(lambda self: self.world.trying)
    @rule(
        which=st.integers(0, 1000),
        status=st.sampled_from([200, 200, 200, 500, 503, 400, 410]),
        retry_after=st.sampled_from([None, None, 1.0, 40.0]),
    )
    def an_endpoint_answers(self, which: int, status: int, retry_after: float | None) -> None:
        async def answer() -> None:
            future, _, _ = self.world.trying.pop(which % len(self.world.trying))
            if not future.done():
                future.set_result((status, retry_after if status == 503 else None))
            await self._settle_down()
            await self.hold.take(10)

        self.do(answer())

    @rule(seconds=st.sampled_from([0.3, 1.0, 3.0, 70.0, 400.0]))
    def time_passes(self, seconds: float) -> None:
        async def wait() -> None:
            await asyncio.sleep(seconds)
            await self.hold.take(10)
            await self._settle_down()

        self.do(wait())

    @rule(name=st.sampled_from(HOOKS), enabled=st.booleans())
    def its_owner_switches_a_webhook(self, name: str, enabled: bool) -> None:
        (self.world.store.disabled.discard if enabled else self.world.store.disabled.add)(name)

    @rule(grace=st.sampled_from([0.0, 2.0]), to=st.integers(0, 1))
    def the_partition_moves(self, grace: float, to: int) -> None:
        async def move() -> None:
            await self.hold.session.stop(grace)
            self.hold.over = True
            self.hold = Hold(self.world, self.workers[to].shared)
            await self.hold.take(10)
            await self._settle_down()

        self.do(move())

    @rule(which=st.integers(0, 1))
    def a_worker_dies_and_another_comes(self, which: int) -> None:
        async def die() -> None:
            worker = self.workers[which]
            holds = self.hold.session._shared is worker.shared
            if holds:
                self.hold.over = True
                await self.hold.session.stop(0)
            await worker.die()
            self.workers[which] = Worker(self.world)
            if holds:
                self.hold = Hold(self.world, self.workers[1 - which].shared)
                await self.hold.take(10)
            await self._settle_down()

        self.do(die())

    def teardown(self) -> None:
        if hasattr(self, "world"):
            self.do(self._heal_and_judge())
        self.loop.close()
        structlog.reset_defaults()

    async def _heal_and_judge(self) -> None:
        world = self.world
        world.healed = True
        world.store.disabled.clear()
        for future, _, _ in world.trying:
            if not future.done():
                future.set_result((200, None))
        for _ in range(400):
            await asyncio.sleep(30)
            await self.hold.take(10)
            if not world.queue and not world.store.lanes:
                break
        for worker in self.workers:
            await asyncio.gather(*worker.log.writing)
        assert world.queue == []
        assert world.store.lanes == {}
        rows = world.store.rows
        for name in HOOKS:
            for user, count in self.said.items():
                arrived = list(dict.fromkeys(world.arrived.get((name, user), [])))
                assert arrived == sorted(arrived), f"{name} got {user}'s in the order {arrived}"
                for counter in range(1, count + 1):
                    row = rows[delivery_id(f"{user}-{counter}", name)]
                    assert row.status in ("delivered", "dead"), row
                    assert (row.status == "dead") or counter in arrived
        await self.hold.session.stop(0)
        for worker in self.workers:
            await worker.die()


TestAnyInterleaving = AnyInterleaving.TestCase
