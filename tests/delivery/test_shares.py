"""An endpoint that takes its time, and a conversation with much to say, are no other customer's problem."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace

from delivery_worker_parts import Worker, until

from broker.port import Envelope
from broker.registry.records import Webhook
from consumers.delivery_worker import DeliverySession

#: Messages of one user, far more than the prefetch, and how long each takes, in seconds.
MANY, TAKES_S = 300, 0.2


@dataclass
class Customer:
    """A channel of its own with one webhook."""

    worker: Worker
    webhook: Webhook

    def says(self, user: str, count: int = 1) -> list[Envelope]:
        """Make the next responses to a user."""
        return self.worker.says(user, count)

    def got(self, user: str) -> list[int]:
        """Return what arrived, in order."""
        return self.worker.order(self.webhook.id, user)

    @property
    def arrived(self) -> int:
        """How many deliveries arrived in all."""
        return sum(webhook == self.webhook.id for webhook, _, _ in self.worker.endpoint.delivered)


async def customer(worker: Worker) -> Customer:
    """Make a channel with one webhook."""
    channel, _ = await worker.channels.create("of a customer", {"type": "echo"})
    webhook = await worker.webhooks.create(channel.id, url=f"https://{channel.id[-8:]}.example/")
    assert webhook is not None
    return Customer(replace(worker, channel=channel, counters={}), webhook)


class Queue:
    """A partition's queue, as a broker has it: in order, and no more unacknowledged than the prefetch."""

    def __init__(self, worker: Worker, session: DeliverySession) -> None:
        self._worker = worker
        self._session = session
        self._waiting: list[Envelope] = []
        self._given = 0
        self._serving = asyncio.create_task(self._serve())

    def put(self, *envelopes: Sequence[Envelope]) -> None:
        """Put messages at its end."""
        self._waiting += [envelope for each in envelopes for envelope in each]
        self._worker.queue.changed.set()

    async def close(self) -> None:
        """Serve no more."""
        self._serving.cancel()
        await asyncio.gather(self._serving, return_exceptions=True)

    async def _serve(self) -> None:
        changed, prefetch = self._worker.queue.changed, self._worker.shared.prefetch
        while True:
            room = prefetch - (self._given - len(self._worker.queue.acked))
            now, self._waiting = self._waiting[:room], self._waiting[room:]
            self._given += len(now)
            if now:
                await self._session.take(now)
            else:
                changed.clear()
                await changed.wait()


async def test_a_hot_conversation_with_an_endpoint_that_takes_its_time_holds_up_nobody(
    worker: Worker,
) -> None:
    hot, other = await customer(worker), await customer(worker)
    worker.endpoint.takes_s[hot.webhook.id] = TAKES_S
    session, drainer = worker.session(), worker.drainer()
    queue = Queue(worker, session)
    queue.put(hot.says("ann", MANY), hot.says("amy"), other.says("bob", 3))
    await until(lambda: other.got("bob") == [1, 2, 3], "the other customer has all")
    # Half of the prefetch would have to be settled first, one delivery after the other.
    assert hot.arrived <= MANY / 10
    await until(lambda: hot.got("amy") == [1], "nor do its own quiet conversations wait")
    assert hot.arrived <= MANY / 10
    assert await worker.parked() == {(hot.webhook.id, f"{hot.webhook.channel_id}/ann")}
    worker.endpoint.takes_s.clear()
    queue.put(hot.says("ann", 5))
    await until(lambda: len(hot.got("ann")) == MANY + 5, "the hot one has all")
    assert hot.got("ann") == list(range(1, MANY + 6))
    await until(lambda: len(worker.queue.acked) == MANY + 9, "all is acknowledged")
    worker.stop.set()
    await drainer
    await queue.close()
    await session.stop(1)


async def test_an_endpoint_with_more_to_do_than_it_can_holds_up_nobody(worker: Worker) -> None:
    slow, other = await customer(worker), await customer(worker)
    worker.endpoint.takes_s[slow.webhook.id] = 0.9
    session, drainer = worker.session(), worker.drainer()
    queue = Queue(worker, session)
    users = [f"ann-{number}" for number in range(MANY)]
    queue.put(*(slow.says(user) for user in users), other.says("bob", 3))
    await until(lambda: other.got("bob") == [1, 2, 3], "the other customer has all")
    assert slow.arrived <= MANY / 5
    worker.endpoint.takes_s.clear()
    await until(lambda: slow.arrived == MANY, "the slow one has all")
    assert all(slow.got(user) == [1] for user in users)
    worker.stop.set()
    await drainer
    await queue.close()
    await session.stop(1)


async def test_a_quick_burst_is_settled_from_memory(worker: Worker) -> None:
    quick = await customer(worker)
    session = worker.session()
    queue = Queue(worker, session)
    queue.put(quick.says("ann", MANY), *(quick.says(f"ann-{number}") for number in range(MANY)))
    await until(lambda: len(worker.queue.acked) == 2 * MANY, "all is acknowledged")
    # Nobody drains the backlog here, so nothing had to go there.
    assert quick.got("ann") == list(range(1, MANY + 1))
    assert quick.arrived == 2 * MANY
    assert await worker.parked() == set()
    await queue.close()
    await session.stop(1)
