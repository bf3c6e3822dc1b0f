"""Simulates the pipeline message by message, and holds simulation, model and measurement against each other.

`python -m bench.simulate` prints tables; `--json` writes `bench/results/simulation.json` too. Costs come from
`bench/costs.json`, what was measured from `bench/results/`, where it is there. CPU times vary around their means
(gamma, coefficient of variation 0.5), arrivals are Poisson: both are assumptions.
"""

import argparse
import json
import math
import random
import statistics
from collections import defaultdict, deque
from collections.abc import Callable, Generator, Iterator
from dataclasses import asdict, dataclass, replace
from itertools import accumulate
from pathlib import Path
from typing import Any

import simpy
from rich.console import Console
from rich.table import Table

from bench import model
from bench.model import Costs, Deployment, Load
from broker.partitions import conversation_key, partition_of

HERE = Path(__file__).parent
#: Messages of each run: enough for a p99, or for a second of a high rate; all runs together stay under 20 seconds.
MESSAGES, MOST_MESSAGES = 3000, 15_000
#: Messages an hour that the project asks about.
LOADS = {"10 thousand": 1e4, "1 million": 1e6, "100 million": 1e8}
#: Assumption: a user says something so often, in seconds; at least so many conversations there are.
EACH_USER_S, LEAST_CONVERSATIONS = 20.0, 1000

Steps = Generator[simpy.Event, Any, None]


class Station:
    """Servers side by side, first come first served; each job also takes a core of the machine they share."""

    def __init__(self, run: "Run", servers: int, machine: simpy.Resource | None = None) -> None:
        self._run, self._machine = run, machine
        self._slots = simpy.Resource(run.env, servers)
        self.servers = servers
        self.busy_s = 0.0

    def serve(self, seconds: float) -> Steps:
        """Work for about so many seconds."""
        lasts = self._run.chance.gammavariate(4, seconds / 4) if seconds else 0.0
        with self._slots.request() as own:
            yield own
            if self._machine is None:
                yield self._run.env.timeout(lasts)
            else:
                with self._machine.request() as core:
                    yield core
                    yield self._run.env.timeout(lasts)
                    self._run.machine_s += lasts
        self.busy_s += lasts


class Batcher:
    """Group commit, as `broker.batching` has it: what comes while one call runs makes up the next."""

    def __init__(self, run: "Run", call: Callable[[int], Steps]) -> None:
        self._env, self._call = run.env, call
        self._waiting: deque[simpy.Event] = deque()
        self._working = False

    def submit(self) -> simpy.Event:
        """Return an event that comes when the item is processed."""
        done = self._env.event()
        self._waiting.append(done)
        if not self._working:
            self._working = True
            self._env.process(self._work())
        return done

    def _work(self) -> Steps:
        while self._waiting:
            batch = [self._waiting.popleft() for _ in range(min(model.TURNS_A_BATCH, len(self._waiting)))]
            yield from self._call(len(batch))
            for done in batch:
                done.succeed()
        self._working = False


class Lanes:
    """One item at a time within a lane, lanes side by side, as `consumers.lanes` has it."""

    def __init__(self, run: "Run", work: Callable[[Any, Any], Steps]) -> None:
        self._env, self._work = run.env, work
        self._lanes: dict[Any, deque[Any]] = {}

    def put(self, key: Any, item: Any) -> None:
        """Put an item at the end of its lane."""
        if key in self._lanes:
            self._lanes[key].append(item)
        else:
            self._lanes[key] = deque([item])
            self._env.process(self._run(key))

    def _run(self, key: Any) -> Steps:
        lane = self._lanes[key]
        while lane:
            yield from self._work(key, lane[0])
            lane.popleft()
        del self._lanes[key]


class Partition:
    """A queue with one consumer: so many messages a second, so many in hand."""

    def __init__(self, run: "Run", rate: float) -> None:
        self.pace, self.pace_s = Station(run, 1), 1 / rate
        self.prefetch = simpy.Resource(run.env, model.PREFETCH)


class DeliveryWorker:
    """What one delivery worker has of its own: its loop, its places, and the log that it writes."""

    def __init__(self, run: "Run") -> None:
        self.cpu = Station(run, 1, run.machine)
        self.places = simpy.Resource(run.env, model.PLACES)
        # Endpoints have shown what they can take; the climb from 4 to 64 is over.
        slow = run.costs.post_s + run.load.receiver_s >= model.PATIENCE_S
        each = model.PLACES_SLOW if slow else model.PLACES_EACH
        self.own: dict[Any, simpy.Resource] = defaultdict(lambda: simpy.Resource(run.env, each))
        self._run, self._rows, self._writing = run, 0, False

    def log(self) -> None:
        """Have one row written soon."""
        self._rows += 1
        if not self._writing:
            self._writing = True
            self._run.env.process(self._write())

    def _write(self) -> Steps:
        yield self._run.env.timeout(model.LINGER_S)
        while self._rows:
            rows = min(model.ROWS_A_BATCH, self._rows)
            yield from self._run.transaction(self._run.costs.commit_s, rows, 1, "delivery")
            self._rows -= rows
        self._writing = False


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
    """One run of one cluster. With `drain`, all messages wait in the queues when it begins."""

    def __init__(
        self, costs: Costs, deployment: Deployment, load: Load, *,
        messages: int = MESSAGES, conversations: int = 0, drain: bool = False, zipf: float = 0.0, seed: int = 1,
    ) -> None:  # fmt: skip
        self.costs, self.deployment, self.load = costs, deployment, load
        self.env, self.chance = simpy.Environment(), random.Random(seed)
        self._messages, self._drain = messages, drain
        self.machine = (
            simpy.Resource(self.env, deployment.machine_cores) if deployment.machine_cores else None
        )
        self.machine_s = 0.0
        self._api = [Station(self, 1, self.machine) for _ in range(deployment.api)]
        self._bot = [Station(self, 1, self.machine) for _ in range(deployment.bot)]
        self._deliver = [DeliveryWorker(self) for _ in range(deployment.deliver)]
        self._rabbitmq = Station(self, deployment.rabbitmq_nodes * deployment.rabbitmq_cores, self.machine)
        self._rabbitmq_s = costs.rabbitmq_us * model.replication(costs, deployment.rabbitmq_nodes) / 1e6
        self._postgres = Station(self, deployment.postgres_cores, self.machine)
        self._harness = Station(self, deployment.machine_cores or messages, self.machine)
        self._batchers = [self._batchers_of_a_worker() for _ in self._bot]
        self._in = [Partition(self, costs.partition_rate) for _ in range(deployment.partitions)]
        self._out = [Partition(self, costs.partition_rate) for _ in range(deployment.partitions)]
        self._turns, self._deliveries = Lanes(self, self._answer), Lanes(self, self._attempt)
        number = conversations or max(LEAST_CONVERSATIONS, int(load.rate * EACH_USER_S))
        # The first of them says most: shares fall as 1/rank^zipf; 0 gives all the same.
        self._weights = list(accumulate((rank + 1) ** -zipf for rank in range(number)))
        self._arrived: list[tuple[float, float]] = []

    def outcome(self) -> Outcome:
        """Run to the end. The first and the last tenth of the deliveries are left out: filling and emptying."""
        fan_out = max(1, round(self.load.responses)) * max(1, round(self.load.webhooks))
        all_of_them = self._messages * fan_out
        self.env.process(self._send())
        cut = all_of_them // 10
        self._run_until(cut)
        began, before = self.env.now, self._worked()
        self._run_until(all_of_them - cut)
        seconds, after = self.env.now - began, self._worked()
        self._run_until(all_of_them)
        took = statistics.quantiles((at - sent for at, sent in self._arrived[cut:-cut]), n=100)
        # A drain is measured to its last delivery, for the bot workers run ahead of the deliveries.
        rate = self._messages / self.env.now if self._drain else (all_of_them - 2 * cut) / fan_out / seconds
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
        if self.deployment.machine_cores:
            worked["machine"] = self.machine_s / self.deployment.machine_cores
        return worked

    def transaction(self, fixed_s: float, rows: int, part: float, kind: str) -> Steps:
        """Read or write so many rows at once; a part of what a row costs PostgreSQL."""
        each_us = self.costs.postgres_turn_us if kind == "turn" else self.costs.postgres_delivery_us
        yield from self._postgres.serve(rows * part * each_us / 1e6)
        yield self.env.timeout(fixed_s)

    def _batchers_of_a_worker(self) -> tuple[Batcher, Batcher, Batcher]:
        rest, costs = (1 - model.COMMIT_PART) / 2, self.costs
        return (
            Batcher(self, lambda rows: self.transaction(costs.query_s, rows, rest, "turn")),
            Batcher(self, lambda rows: self.transaction(costs.commit_s, rows, model.COMMIT_PART, "turn")),
            Batcher(self, lambda rows: self.transaction(costs.commit_s, rows, rest, "turn")),
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
            self.env.process(self._take_in(message) if self._drain else self._accept(message))

    def _accept(self, message: Message) -> Steps:
        yield from self._harness.serve(self.costs.sender_us / 1e6)
        yield from self.chance.choice(self._api).serve(self.costs.api_us / 1e6)
        yield from self._publish(self._in[message.partition])
        yield from self._take_in(message)

    def _publish(self, partition: Partition) -> Steps:
        yield from self._rabbitmq.serve(self._rabbitmq_s)
        yield from partition.pace.serve(partition.pace_s)
        yield self.env.timeout(self.costs.confirm_s)

    def _take_in(self, message: Message) -> Steps:
        queue = self._in[message.partition]
        in_hand = queue.prefetch.request()
        yield in_hand
        if self._drain:
            # What was published before costs what is left of its way: delivering and acknowledging.
            yield from self._rabbitmq.serve(self._rabbitmq_s / 2)
        self._turns.put(message.conversation, (message, lambda: queue.prefetch.release(in_hand)))

    def _answer(self, _: Any, item: tuple[Message, Callable[[], object]]) -> Steps:
        message, acknowledge = item
        # Partitions are shared out evenly: nobody has more than one above another.
        worker = message.partition % len(self._bot)
        cpu, (load, commit, mark) = self._bot[worker], self._batchers[worker]
        yield from cpu.serve(self.costs.bot_turn_us / 2e6)
        yield load.submit()
        if self.load.bot_s:
            yield self.env.timeout(self.chance.expovariate(1 / self.load.bot_s))
        yield commit.submit()
        yield from cpu.serve(self.costs.bot_turn_us / 2e6)
        for _ in range(max(1, round(self.load.responses))):
            yield from cpu.serve(self.costs.bot_response_us / 1e6)
            yield from self._publish(self._out[message.partition])
            self.env.process(self._fan_out(message))
        yield mark.submit()
        acknowledge()

    def _fan_out(self, message: Message) -> Steps:
        queue = self._out[message.partition]
        in_hand = queue.prefetch.request()
        yield in_hand
        yield from self._deliver[message.partition % len(self._deliver)].cpu.serve(
            self.costs.deliver_response_us / 1e6
        )
        open_ = set(range(max(1, round(self.load.webhooks))))

        def settle(webhook: int) -> None:
            open_.discard(webhook)
            if not open_:
                queue.prefetch.release(in_hand)

        for webhook in sorted(open_):
            self._deliveries.put((message.channel, webhook, message.conversation), (message, settle))

    def _attempt(self, key: tuple[int, int, int], item: tuple[Message, Callable[[int], None]]) -> Steps:
        (channel, webhook, _), (message, settle) = key, item
        worker = self._deliver[message.partition % len(self._deliver)]
        half_s = self.costs.deliver_attempt_us / 2e6
        receiver_s = self.load.receiver_s
        with worker.own[channel, webhook].request() as own:
            yield own
            with worker.places.request() as place:
                yield place
                yield from worker.cpu.serve(half_s)
                yield self.env.timeout(self.costs.post_s)
                yield from self._harness.serve(self.costs.receiver_us / 1e6)
                self._arrived.append((self.env.now, message.sent))
                answers_in = self.chance.expovariate(1 / receiver_s) if receiver_s else 0.0
                yield self.env.timeout(min(answers_in, model.PATIENCE_S))
            # Beyond its patience it waits on without a place.
            yield self.env.timeout(max(0.0, answers_in - model.PATIENCE_S))
        yield from worker.cpu.serve(half_s)
        worker.log()
        settle(webhook)


def drained(costs: Costs, load: Load) -> Costs:
    """Return what is left of the costs where the messages wait in the queues already: half of RabbitMQ's for them."""
    left = (0.5 + load.responses) / (1 + load.responses)
    return replace(costs, api_us=0.0, sender_us=0.0, rabbitmq_us=costs.rabbitmq_us * left)


def read(name: str) -> dict[str, Any]:
    """Read a file of results; empty where there is none."""
    path = HERE / "results" / name
    found: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    return found


def read_costs() -> tuple[bool, Deployment, Costs]:
    """Read whether the costs were measured, the deployment that was, and the costs."""
    written = json.loads((HERE / "costs.json").read_text())
    values = {name: entry["value"] for name, entry in written["costs"].items()}
    return written["measured"], Deployment(**written["bench"]), Costs(**values)


def compare(costs: Costs, bench: Deployment) -> Iterator[dict[str, Any]]:
    """Yield rows of what, simulation, model and measurement; None is unknown.

    A file of results may name how it was measured: `deployment` and `load` hold fields of those that differ from
    what `bench` in `costs.json` says, `messages` and `conversations` how many there were.
    """
    rate = read("rate.json")
    deployment = replace(bench, **rate.get("deployment", {}))
    load = Load(3600.0, **{"receiver_s": 0.0, **rate.get("load", {})})
    full = model.capacity(costs, deployment, load)
    yield row("messages a second at most", None, full, rate.get("max_rate_per_s"))
    load = replace(load, messages_per_hour=3600 * rate.get("rate_per_s", 0.6 * full))
    messages, conversations = size(rate)
    found = Run(costs, deployment, load, messages=messages, conversations=conversations).outcome()
    mean_ms = model.latency_s(costs, deployment, load) * 1000
    yield row("at a rate of, messages a second", found.rate_per_s, load.rate, rate.get("rate_per_s"))
    yield row("p50, ms (model: mean)", found.p50_ms, mean_ms, rate.get("p50_ms"))
    yield row("p99, ms", found.p99_ms, None, rate.get("p99_ms"))
    for name, part in model.utilisation(costs, deployment, load).items():
        if name in found.busy:
            yield row(f"  {name} busy, %", found.busy[name] * 100, part * 100, None)
    drain = read("drain.json")
    yield drain_row("drain, messages a second", costs, bench, drain, drain.get("rate_per_s"))
    out = read("scale_out.json")
    for number in ("1", "2", "4"):
        workers = replace(bench, bot=int(number), deliver=int(number))
        measured = out.get("workers", {}).get(number)
        yield drain_row(f"drain by {number} bot, {number} deliver", costs, workers, out, measured)


def size(found: dict[str, Any]) -> tuple[int, int]:
    """Return how many messages and conversations to simulate: as were measured, within the time that there is."""
    return min(MOST_MESSAGES, int(found.get("messages", MESSAGES))), int(found.get("conversations", 0))


def drain_row(
    what: str, costs: Costs, base: Deployment, found: dict[str, Any], measured: float | None
) -> dict[str, Any]:
    """Simulate and compute how fast filled queues become empty."""
    deployment = replace(base, **found.get("deployment", {}))
    load = Load(3600.0, **{"receiver_s": 0.0, **found.get("load", {})})
    messages, conversations = size(found)
    run = Run(costs, deployment, load, messages=messages, conversations=conversations, drain=True)
    modelled = model.capacity(drained(costs, load), deployment, load)
    return row(what, run.outcome().rate_per_s, modelled, measured)


def row(what: str, simulated: float | None, modelled: float | None, measured: float | None) -> dict[str, Any]:
    """Make one row of the comparison."""
    return {"what": what, "simulation": simulated, "model": modelled, "measured": measured}


def grow(costs: Costs, target: float, zipf: float) -> Iterator[dict[str, Any]]:
    """Yield for each load what is full first as shipped, what it needs, and how that does in the simulation."""
    shipped = Deployment()
    for name, hourly in LOADS.items():
        load = Load(hourly)
        after = model.needed(costs, load, target)
        busy = model.utilisation(costs, after, load)
        takes = model.estimate(costs, after, load)
        # Clusters share nothing: one with its part of the load stands for all.
        part = replace(
            load, messages_per_hour=hourly / after.clusters, channels=load.channels // after.clusters
        )
        messages = min(MOST_MESSAGES, max(MESSAGES, int(part.rate)))
        found = Run(costs, replace(after, clusters=1), part, messages=messages, zipf=zipf).outcome()
        first = sorted(busy, key=lambda resource: -busy[resource])[:3]
        as_shipped = model.utilisation(costs, shipped, load)
        yield {
            "messages an hour": name,
            "messages a second": f"{load.rate:,.1f}",
            "as shipped: full first": model.first_to_saturate(costs, shipped, load),
            "  busy then, and carries": f"{max(as_shipped.values()):.0%}; "
            f"{model.capacity(costs, shipped, load):,.0f}/s",
            "to change": "\n".join(model.changes(shipped, after)) or "nothing",
            "  busiest then": "\n".join(f"{resource} {busy[resource]:.0%}" for resource in first),
            "cores, all clusters": f"{takes.cores:,}",
            "memory at most": f"{takes.memory_gb:,.0f} GB",
            "PostgreSQL grows a day": f"{takes.postgres_gb_a_day:,.1f} GB",
            "simulated, each cluster": f"{found.rate_per_s:,.1f}/s",
            "  p50, p99": f"{found.p50_ms:,.1f} ms, {found.p99_ms:,.1f} ms",
            "  busy": "\n".join(f"{resource} {part:.0%}" for resource, part in found.busy.items()),
        }


def show(value: float | None) -> str:
    """Write a number, or a dash where there is none."""
    return "–" if value is None else "full" if math.isinf(value) else f"{value:,.1f}"


def main() -> None:
    """Simulate, compute, print, and write down where asked."""
    parser = argparse.ArgumentParser(prog="python -m bench.simulate", description=__doc__)
    parser.add_argument("--json", action="store_true", help="write bench/results/simulation.json too")
    parser.add_argument("--target", type=float, default=0.6, help="how busy anything may be, 0 to 1")
    parser.add_argument("--zipf", type=float, default=0.0, help="how unevenly conversations talk; 0: evenly")
    asked = parser.parse_args()
    measured, bench, costs = read_costs()
    compared, grown = list(compare(costs, bench)), list(grow(costs, asked.target, asked.zipf))
    console = Console()
    if not measured:
        console.print("The costs are placeholders: nothing below tells of a real machine.", style="bold")
    table = Table("", "simulation", "model", "measured", title=f"One machine, {bench.machine_cores} cores")
    for each in compared:
        table.add_row(each["what"], *(show(each[name]) for name in ("simulation", "model", "measured")))
    console.print(table)
    table = Table("", title=f"What to change, nothing busier than {asked.target:.0%}")
    for each in grown:
        table.add_column(each["messages an hour"] + " messages an hour")
    for name in list(grown[0])[1:]:
        table.add_row(name, *(each[name] for each in grown))
    console.print(table)
    if asked.json:
        (HERE / "results").mkdir(exist_ok=True)
        found = {"costs measured": measured, "costs": asdict(costs), "compared": compared, "loads": grown}
        (HERE / "results" / "simulation.json").write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
