"""What the simulated pipeline is made of: servers that work, batches, lanes, partitions, delivery workers."""

import random
from collections import defaultdict, deque
from collections.abc import Callable, Generator
from itertools import count
from typing import Any, Protocol

import simpy

from bench import model
from bench.model import Costs, Load
from broker.rabbitmq.acks import Acks
from broker.rabbitmq.subscription import ENOUGH_PART

Steps = Generator[simpy.Event, Any, None]
#: Assumption: CPU times vary around their means as a gamma distribution of this shape does, by half of the mean.
SHAPE = 4.0
#: Assumption: how long others have a core of a shared machine at once, in seconds: a scheduler's slice.
OTHERS_S = 0.01


class World(Protocol):
    """What all parts of one run share."""

    env: simpy.Environment
    chance: random.Random
    costs: Costs
    load: Load
    machine: "Machine | None"

    def transaction(self, fixed_s: float, rows: int, part: float, kind: str) -> Steps:
        """Read or write so many rows at once; a part of what a row costs PostgreSQL."""
        ...


class Station:
    """Servers side by side, first come first served; each job also takes a core of the machine they share."""

    def __init__(self, run: World, servers: int, machine: "Machine | None" = None) -> None:
        self._run, self._machine = run, machine
        self._jobs: deque[tuple[float, simpy.Event]] = deque()
        self._idle = self.servers = servers
        self.busy_s = 0.0

    def serve(self, seconds: float) -> simpy.Event:
        """Return an event that comes when about so many seconds of work are done."""
        done = self._run.env.event()
        if not seconds:
            return done.succeed()
        self._jobs.append((self._run.chance.gammavariate(SHAPE, seconds / SHAPE), done))
        if self._idle:
            self._idle -= 1
            self._run.env.process(self._work())
        return done

    def _work(self) -> Steps:
        while self._jobs:
            lasts, done = self._jobs.popleft()
            if self._machine is None:
                yield self._run.env.timeout(lasts)
            else:
                yield from self._machine.work(lasts)
            self.busy_s += lasts
            done.succeed()
        self._idle += 1


class Machine:
    """Cores that all processes share, and of which others take a part, a piece of time at once."""

    def __init__(self, run: World, cores: int, others: float) -> None:
        self._env, self.cores, self.busy_s = run.env, cores, 0.0
        self._free = simpy.Resource(run.env, cores)
        if others:
            for _ in range(cores):
                run.env.process(self._others(run.chance, OTHERS_S * (1 / others - 1)))

    def work(self, seconds: float) -> Steps:
        """Take a core for so long."""
        with self._free.request() as core:
            yield core
            yield self._env.timeout(seconds)
            self.busy_s += seconds

    def _others(self, chance: random.Random, every_s: float) -> Steps:
        while True:
            yield self._env.timeout(chance.expovariate(1 / every_s))
            with self._free.request() as core:
                yield core
                yield self._env.timeout(OTHERS_S)


class Batcher:
    """Group commit, as `broker.batching` has it: what comes while one call runs makes up the next."""

    def __init__(
        self, run: World, call: Callable[[int], Steps], linger_s: float = 0.0, busy_linger_s: float = 0.0
    ) -> None:
        self._env, self._call = run.env, call
        self._linger_s, self._busy_linger_s = linger_s, busy_linger_s
        self._waiting: deque[simpy.Event] = deque()
        self._working = self._busy = False

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
            linger_s = self._busy_linger_s if self._busy else self._linger_s
            if linger_s and len(self._waiting) < model.TURNS_A_BATCH:
                yield self._env.timeout(linger_s)
            self._busy = len(self._waiting) > 1 and self._busy_linger_s > 0
            batch = [self._waiting.popleft() for _ in range(min(model.TURNS_A_BATCH, len(self._waiting)))]
            yield from self._call(len(batch))
            for done in batch:
                done.succeed()
        self._working = False


class Lanes:
    """One item at a time within a lane, lanes side by side, as `consumers.lanes` has it."""

    def __init__(self, run: World, work: Callable[[Any, Any], Steps]) -> None:
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
    """A queue with one consumer: so many messages a second, so many in hand, acknowledged as a worker does."""

    def __init__(self, run: World, rate: float) -> None:
        self._env, self._each_s, self._free_at = run.env, 1 / rate, 0.0
        self._prefetch = simpy.Resource(run.env, model.PREFETCH)
        self._acks, self._tags = Acks(model.PREFETCH), count(1)
        self._in_hand: dict[int, Any] = {}
        self._writing = False

    def take(self) -> Generator[simpy.Event, Any, int]:
        """Wait until one more may be in hand, and take it: its delivery tag."""
        request = self._prefetch.request()
        yield request
        tag = next(self._tags)
        self._in_hand[tag] = request
        self._acks.arrive(tag)
        return tag

    def settle(self, tag: int) -> None:
        """Have a delivery acknowledged soon."""
        self._acks.settle(tag, self._env.now)
        if self._acks.fresh >= model.PREFETCH // ENOUGH_PART:
            self._write()
        elif not self._writing:
            self._writing = True
            self._env.process(self._write_soon())

    def _write_soon(self) -> Steps:
        while len(self._acks):
            yield self._env.timeout(model.ACK_LINGER_S)
            self._write()
        self._writing = False

    def _write(self) -> None:
        for highest, multiple in self._acks.take(self._env.now):
            for tag in [each for each in self._in_hand if each <= highest] if multiple else [highest]:
                self._prefetch.release(self._in_hand.pop(tag))

    def pace(self) -> simpy.Event:
        """Return an event that comes when the queue takes one more, at once where it is not at its limit."""
        begins = max(self._env.now, self._free_at)
        self._free_at = begins + self._each_s
        return self._env.timeout(begins - self._env.now)


class DeliveryWorker:
    """What one delivery worker has of its own: its loop, its places, and the log that it writes."""

    def __init__(self, run: World, places: int) -> None:
        self.cpu = Station(run, 1, run.machine)
        self.places = simpy.Resource(run.env, places)
        # Endpoints have shown what they can take; the climb from 4 to 64 is over.
        self.own: dict[Any, simpy.PriorityResource] = defaultdict(
            lambda: simpy.PriorityResource(run.env, model.PLACES_EACH)
        )
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
