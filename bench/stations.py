"""What the simulated pipeline is made of: servers that work, batches, lanes, partitions, delivery workers.

CPU times vary around their means (gamma, coefficient of variation 0.5): an assumption.
"""

import random
from collections import defaultdict, deque
from collections.abc import Callable, Generator
from typing import Any, Protocol

import simpy

from bench import model
from bench.model import Costs, Load

Steps = Generator[simpy.Event, Any, None]


class World(Protocol):
    """What all parts of one run share."""

    env: simpy.Environment
    chance: random.Random
    costs: Costs
    load: Load
    machine: simpy.Resource | None
    machine_s: float

    def transaction(self, fixed_s: float, rows: int, part: float, kind: str) -> Steps:
        """Read or write so many rows at once; a part of what a row costs PostgreSQL."""
        ...


class Station:
    """Servers side by side, first come first served; each job also takes a core of the machine they share."""

    def __init__(self, run: World, servers: int, machine: simpy.Resource | None = None) -> None:
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

    def __init__(self, run: World, call: Callable[[int], Steps]) -> None:
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
    """A queue with one consumer: so many messages a second, so many in hand."""

    def __init__(self, run: World, rate: float) -> None:
        self.pace, self.pace_s = Station(run, 1), 1 / rate
        self.prefetch = simpy.Resource(run.env, model.PREFETCH)


class DeliveryWorker:
    """What one delivery worker has of its own: its loop, its places, and the log that it writes."""

    def __init__(self, run: World, places: int) -> None:
        self.cpu = Station(run, 1, run.machine)
        self.places = simpy.Resource(run.env, places)
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
