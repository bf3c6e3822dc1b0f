"""One run of the simulated pipeline, message by message, from the sender's POST to the webhook.

Messages arrive as a Poisson process, from users of whom some say more than others: an assumption.
"""

import random
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Literal

import simpy

from bench import model
from bench.model import Costs, Deployment, Load
from bench.stations import Batcher, DeliveryWorker, Lanes, Machine, Partition, Station, Steps
from broker.partitions import conversation_key, partition_of

#: Messages of each run: enough for a p99.
MESSAGES = 3000
#: Assumption: a user says something so often, in seconds; at least so many conversations there are.
EACH_USER_S, LEAST_CONVERSATIONS = 20.0, 1000


@dataclass(frozen=True, slots=True)
class Message:
    """A message on its way: when it was sent, by whom, to which channel."""

    sent: float
    conversation: int
    channel: int
    partition: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a run: messages a second, times from the sender's POST to the webhook, busy fractions."""

    rate_per_s: float
    p50_ms: float
    p99_ms: float
    busy: dict[str, float]


class Run:
    """One run of one cluster. With `drain`, all messages wait in those queues when it begins.

    A run that drains the inbound queues ends with the responses on their queues.
    """

    def __init__(
        self, costs: Costs, deployment: Deployment, load: Load, *,
        messages: int = MESSAGES, conversations: int = 0, drain: Literal["", "in", "out"] = "",
        zipf: float = 0.0, seed: int = 1, places: int = model.PLACES,
    ) -> None:  # fmt: skip
        self.costs, self.deployment, self.load = costs, deployment, load
        self.env, self.chance = simpy.Environment(), random.Random(seed)
        self._messages, self._drain = messages, drain
        self.machine = (
            Machine(self, deployment.machine_cores, costs.others) if deployment.machine_cores else None
        )
        self._api = [Station(self, 1, self.machine) for _ in range(deployment.api)]
        self._bot = [Station(self, 1, self.machine) for _ in range(deployment.bot)]
        self._deliver = [DeliveryWorker(self, places) for _ in range(deployment.deliver)]
        self._rabbitmq = Station(self, deployment.rabbitmq_nodes * deployment.rabbitmq_cores, self.machine)
        members = model.replication(costs, deployment.rabbitmq_nodes)
        self._publish_s = costs.rabbitmq_publish_us * members / 1e6
        self._take_s = costs.rabbitmq_take_us * members / 1e6
        self._postgres = Station(self, deployment.postgres_cores, self.machine)
        self._sender, self._receiver = Station(self, 1, self.machine), Station(self, 1, self.machine)
        self._batchers = [self._batchers_of_a_worker() for _ in self._bot]
        self._in = [Partition(self, costs.partition_rate) for _ in range(deployment.partitions)]
        self._out = [Partition(self, costs.partition_rate) for _ in range(deployment.partitions)]
        self._turns, self._deliveries = Lanes(self, self._answer), Lanes(self, self._attempt)
        number = conversations or max(LEAST_CONVERSATIONS, int(load.rate * EACH_USER_S))
        # The first of them says most: shares fall as 1/rank^zipf; 0 gives all the same.
        self._weights = list(accumulate((rank + 1) ** -zipf for rank in range(number)))
        self._responses, self._webhooks = max(1, round(load.responses)), max(1, round(load.webhooks))
        self._arrived: list[tuple[float, float]] = []

    def outcome(self) -> Outcome:
        """Run to the end. The first and the last tenth of the deliveries are left out: filling and emptying."""
        fan_out = 1 if self._drain == "in" else self._responses * self._webhooks
        all_of_them = self._messages * fan_out
        self.env.process(self._send())
        cut = all_of_them // 10
        self._run_until(cut)
        began, before = self.env.now, self._worked()
        self._run_until(all_of_them - cut)
        seconds, after = self.env.now - began, self._worked()
        self._run_until(all_of_them)
        took = statistics.quantiles((at - sent for at, sent in self._arrived[cut:-cut]), n=100)
        rate = (all_of_them - 2 * cut) / fan_out / seconds
        busy = {name: (after[name] - before[name]) / seconds for name in after}
        return Outcome(rate, took[49] * 1000, took[98] * 1000, busy)

    def _run_until(self, deliveries: int) -> None:
        while len(self._arrived) < deliveries:
            self.env.step()

    def _worked(self) -> dict[str, float]:
        """Return for how many seconds each kind of server has worked, on average of all that there are."""
        kinds = {
            "api": self._api,
            "bot": self._bot,
            "deliver": [worker.cpu for worker in self._deliver],
            "rabbitmq": [self._rabbitmq],
            "postgres": [self._postgres],
        }
        worked = {
            name: sum(station.busy_s for station in stations) / sum(station.servers for station in stations)
            for name, stations in kinds.items()
        }
        if self.machine is not None:
            worked["machine"] = self.machine.busy_s / self.machine.cores
        return worked

    def transaction(self, fixed_s: float, rows: int, part: float, kind: str) -> Steps:
        """Read or write so many rows at once; a part of what a row costs PostgreSQL."""
        each_us = self.costs.postgres_turn_us if kind == "turn" else self.costs.postgres_delivery_us
        yield self._postgres.serve(rows * part * each_us / 1e6)
        yield self.env.timeout(fixed_s)

    def _batchers_of_a_worker(self) -> tuple[Batcher, Batcher]:
        rest, costs = 1 - model.COMMIT_PART, self.costs
        busy_s = model.BUSY_LINGER_S
        return (
            Batcher(
                self,
                lambda rows: self.transaction(costs.commit_s, rows, model.COMMIT_PART, "turn"),
                0,
                busy_s,
            ),
            Batcher(
                self, lambda rows: self.transaction(costs.commit_s, rows, rest, "turn"), model.MARK_LINGER_S
            ),
        )

    def _send(self) -> Steps:
        conversations = range(len(self._weights))
        for _ in range(self._messages):
            if not self._drain:
                yield self.env.timeout(self.chance.expovariate(self.load.rate))
            (who,) = self.chance.choices(conversations, cum_weights=self._weights)
            channel = who % self.load.channels
            partition = partition_of(conversation_key(f"ch_{channel}", f"u{who}"), self.deployment.partitions)
            message = Message(self.env.now, who, channel, partition)
            start = {"": self._accept, "in": self._take_in, "out": self._fan_out}[self._drain]
            self.env.process(start(message))

    def _accept(self, message: Message) -> Steps:
        if self.machine is not None:
            yield self._sender.serve(self.costs.sender_us / 1e6)
        yield self.chance.choice(self._api).serve(self.costs.api_us / 1e6)
        yield from self._publish(self._in[message.partition])
        yield from self._take_in(message)

    def _publish(self, partition: Partition) -> Steps:
        yield self._rabbitmq.serve(self._publish_s)
        yield partition.pace()
        yield self.env.timeout(self.costs.confirm_s)

    def _take_in(self, message: Message) -> Steps:
        queue = self._in[message.partition]
        tag = yield from queue.take()
        yield self._rabbitmq.serve(self._take_s)
        self._turns.put(message.conversation, (message, lambda: queue.settle(tag)))

    def _answer(self, _: Any, item: tuple[Message, Callable[[], object]]) -> Steps:
        message, acknowledge = item
        # Partitions are shared out evenly: nobody has more than one above another.
        worker = message.partition % len(self._bot)
        cpu, (commit, mark) = self._bot[worker], self._batchers[worker]
        yield cpu.serve(self.costs.bot_turn_us / 2e6)
        if self.load.bot_s:
            yield self.env.timeout(self.chance.expovariate(1 / self.load.bot_s))
        yield commit.submit()
        yield cpu.serve(self.costs.bot_turn_us / 2e6)
        for _ in range(self._responses):
            yield cpu.serve(self.costs.bot_response_us / 1e6)
            yield from self._publish(self._out[message.partition])
            if self._drain != "in":
                self.env.process(self._fan_out(message))
        self.env.process(self._settle(mark, message, acknowledge))

    def _settle(self, mark: Batcher, message: Message, acknowledge: Callable[[], object]) -> Steps:
        yield mark.submit()
        if self._drain == "in":
            self._arrived.append((self.env.now, message.sent))
        acknowledge()

    def _fan_out(self, message: Message) -> Steps:
        queue = self._out[message.partition]
        tag = yield from queue.take()
        yield self._rabbitmq.serve(self._take_s)
        worker = self._deliver[message.partition % len(self._deliver)]
        yield worker.cpu.serve(self.costs.deliver_response_us / 1e6)
        open_ = set(range(self._webhooks))

        def settle(webhook: int) -> None:
            open_.discard(webhook)
            if not open_:
                queue.settle(tag)

        for webhook in sorted(open_):
            self._deliveries.put((message.channel, webhook, message.conversation), (message, tag, settle))

    def _attempt(self, key: tuple[int, int, int], item: tuple[Message, int, Callable[[int], None]]) -> Steps:
        (channel, webhook, _), (message, tag, settle) = key, item
        worker = self._deliver[message.partition % len(self._deliver)]
        half_s = self.costs.deliver_attempt_us / 2e6
        receiver_s = self.load.receiver_s
        # Tags of different partitions are no moments, but count up alike: what has waited longest goes first.
        with worker.own[channel, webhook].request(priority=tag) as own:
            yield own
            with worker.places.request() as place:
                yield place
                yield worker.cpu.serve(half_s)
                yield self.env.timeout(self.costs.post_s)
                if self.machine is not None:
                    yield self._receiver.serve(self.costs.receiver_us / 1e6)
                self._arrived.append((self.env.now, message.sent))
                answers_in = self.chance.expovariate(1 / receiver_s) if receiver_s else 0.0
                yield self.env.timeout(min(answers_in, model.PATIENCE_S))
            # Beyond its patience it waits on without a place.
            yield self.env.timeout(max(0.0, answers_in - model.PATIENCE_S))
        yield worker.cpu.serve(half_s)
        worker.log()
        settle(webhook)
