"""Parts of a delivery worker on a real registry, with an endpoint that answers as it is told."""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

import pytest
from sqlalchemy import select

from broker.models.records import BotResponse
from broker.port import Envelope
from broker.registry.backlog import Backlog
from broker.registry.channels import Channels
from broker.registry.deliveries import Deliveries
from broker.registry.records import Attempt, Channel, ChannelWebhooks, Webhook
from broker.registry.tables import backlog_lanes
from broker.registry.webhooks import Webhooks
from consumers.attempt import Outcome
from consumers.backlog import Drainer
from consumers.delivering import Deliverer
from consumers.delivery_worker import Delivering, DeliverySession
from consumers.disabling import WebhookDisabling
from consumers.gates import Gates
from consumers.retry import Policy, Schedule
from consumers.serving import Stop
from consumers.standing import Standing


class Endpoint:
    """Stands for all endpoints: answers each attempt with `answer(webhook id, message counter)`, and keeps order."""

    def __init__(self) -> None:
        self.delivered: list[tuple[str, str, int]] = []
        self.tried: list[tuple[str, int]] = []
        self.failing: dict[str, int] = {}
        self.hanging: set[str] = set()
        #: How long each answer of a webhook takes, in seconds.
        self.takes_s: dict[str, float] = {}
        #: How many attempts are in flight to each URL, and how many were at the most.
        self.in_flight: Counter[str] = Counter()
        self.most_in_flight: Counter[str] = Counter()
        self.changed = asyncio.Event()

    async def post(
        self, channel: Channel, webhook: Webhook, response: BotResponse, delivery_id: str, number: int
    ) -> Outcome:
        """Answer one attempt."""
        self.in_flight[webhook.url] += 1
        self.most_in_flight |= self.in_flight
        try:
            await asyncio.sleep(self.takes_s.get(webhook.id, 0))
            if webhook.id in self.hanging:
                await asyncio.get_running_loop().create_future()
        finally:
            self.in_flight[webhook.url] -= 1
        status = self.failing.get(webhook.id, 200)
        self.tried.append((webhook.id, response.message_counter))
        if status < 300:
            self.delivered.append((webhook.id, response.user_id, response.message_counter))
        self.changed.set()
        return Outcome(Attempt(number, datetime.now(UTC), 1, status, None, "", "answer"), None)

    async def until(self, deliveries: int) -> None:
        """Wait for so many deliveries."""
        async with asyncio.timeout(20):
            while len(self.delivered) < deliveries:
                self.changed.clear()
                await self.changed.wait()


class AckedQueue:
    """A subscription that remembers what was acknowledged."""

    def __init__(self) -> None:
        self.acked: list[str] = []
        self.changed = asyncio.Event()

    async def receive(self) -> Sequence[Envelope]:
        """Not used: the tests hand envelopes to the session themselves."""
        raise AssertionError

    def ack(self, envelope: Envelope) -> None:
        """Remember."""
        self.acked.append(envelope.id)
        self.changed.set()

    async def flush(self) -> None:
        """Nothing waits."""

    async def until(self, acked: int) -> None:
        """Wait for so many acknowledgements."""
        async with asyncio.timeout(20):
            while len(self.acked) < acked:
                self.changed.clear()
                await self.changed.wait()


class Graveyard:
    """A broker that only keeps what is published to it."""

    def __init__(self) -> None:
        self.published: list[Envelope] = []

    async def publish(self, exchange: str, envelope: Envelope) -> None:
        """Keep it."""
        self.published.append(envelope)


@dataclass
class Worker:
    """A delivery worker's parts, and what they saw."""

    shared: Delivering
    backlog: Backlog
    deliveries: Deliveries
    channels: Channels
    webhooks: Webhooks
    endpoint: Endpoint
    queue: AckedQueue
    graveyard: Graveyard
    channel: Channel
    gates: Gates
    standing: Standing
    stop: Stop
    counters: dict[str, int] = field(default_factory=dict)

    def session(self) -> DeliverySession:
        """Open a session on partition 0."""
        return DeliverySession(self.queue, self.shared, 0)

    def patient(self, *head: float) -> "Worker":
        """Return the same worker with other waits in memory, in seconds."""
        policy = Policy(replace(QUICK, head=head), 3600.0)
        return replace(
            self, shared=replace(self.shared, deliverer=self.deliverer(policy)), counters=self.counters
        )

    def holding(self, prefetch: int) -> "Worker":
        """Return the same worker, where a partition may have so many messages in hand."""
        return replace(self, shared=replace(self.shared, prefetch=prefetch), counters=self.counters)

    def deliverer(self, policy: Policy) -> Deliverer:
        """Make a deliverer with a policy."""
        directory = self.shared.directory
        disabling = WebhookDisabling(self.webhooks, directory)
        return Deliverer(directory, self.endpoint, self.gates, disabling, self.standing, policy)

    def drainer(self) -> "asyncio.Task[None]":
        """Begin to drain the backlog."""
        return asyncio.create_task(
            Drainer(self.shared.parking, self.shared.deliverer, self.gates, self.stop).run()
        )

    async def parked(self) -> set[tuple[str, str]]:
        """Return all lanes that are in the backlog."""
        async with self.backlog._db.read() as connection:
            rows = await connection.execute(
                select(backlog_lanes.c.webhook_id, backlog_lanes.c.conversation_key)
            )
            return {(row[0], row[1]) for row in rows}

    async def logged(self, status: str, count: int) -> list[str]:
        """Wait until so many deliveries have a status, and return their ids."""
        async with asyncio.timeout(20):
            while True:
                page = await self.deliveries.page(self.channel.id, None, 200, status=status)  # type: ignore[arg-type]
                if len(page.items) >= count:
                    return [delivery.id for delivery in page.items]

    def says(self, user: str, count: int = 1, revision: int = 0) -> list[Envelope]:
        """Make the next responses to a user."""
        envelopes: list[Envelope] = []
        for _ in range(count):
            counter = self.counters[user] = self.counters.get(user, 0) + 1
            response = BotResponse(
                id=f"{user}-{counter}",
                channel_id=self.channel.id,
                user_id=user,
                in_reply_to="m",
                index=1,
                count=1,
                message_counter=counter,
                kind="text",
                message={"text": str(counter)},
                channel_revision=revision,
            )
            envelopes.append(
                Envelope(response.id, response.model_dump_json().encode(), "", {}, len(envelopes) + 1)
            )
        return envelopes

    def order(self, webhook: str, user: str) -> list[int]:
        """Return the counters that a webhook got for a user, in order of arrival."""
        return [n for w, u, n in self.endpoint.delivered if (w, u) == (webhook, user)]


#: Fails fast: the tests do not wait for real schedules.
QUICK = Schedule(head=(0.001, 0.001), tail=(0.001,) * 30, jitter=0)


async def until(condition: Callable[[], bool], what: str) -> None:
    """Wait for a condition that tasks of this process bring about; fails after a time."""
    try:
        async with asyncio.timeout(20):
            while not condition():  # noqa: ASYNC110 - whatever brings it about sends no event
                await asyncio.sleep(0.005)
    except TimeoutError:
        raise AssertionError(f"it did not come about that {what}") from None


def counted_reads(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Return a list that is filled with the channels that each reading of webhooks asks for."""
    reads: list[list[str]] = []
    read = Webhooks.of_channels

    async def counted(store: Webhooks, channel_ids: Iterable[str]) -> Mapping[str, ChannelWebhooks]:
        reads.append(wanted := list(channel_ids))
        return await read(store, wanted)

    monkeypatch.setattr(Webhooks, "of_channels", counted)
    return reads
