"""Simulation, model and measurement held against each other, and each of the loads that the project asks about.

`python -m bench --scale` writes all of it into docs/scale.md.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from bench import model, planning
from bench.costs import Kept
from bench.end_to_end import HELD_S
from bench.model import Deployment, Load
from bench.pipeline import Outcome, Run
from bench.planning import Estimate

#: Of a run of the whole way on one machine; of one cluster of the larger loads at most: a second of their rate.
TRIED_MESSAGES, MOST_MESSAGES = 10_000, 50_000
DRAINED_MESSAGES = 12_000
#: What the highest rate held is looked for in steps of, as a part of what the model has at most.
PRECISION = 0.01
#: Messages an hour that the project asks about.
LOADS = {"10 thousand": 1e4, "1 million": 1e6, "100 million": 1e8}
#: Assumptions: how much more comes in the busiest minutes than on average, and how busy anything may be then.
PEAK, TARGET = 3.0, 0.6
#: Assumption: how unevenly users talk; the share of each falls as 1/rank^ZIPF.
ZIPF = 0.5


@dataclass(frozen=True, slots=True)
class Compared:
    """One thing measured, computed and simulated; None is what one of them has nothing to say of."""

    what: str
    unit: str
    measured: float
    model: float | None
    simulated: float | None
    #: How far the simulation may be off, as a part of what was measured; None promises nothing.
    tolerance: float | None
    #: What in it was fitted, so that it proves less.
    fitted: str = ""

    @property
    def within(self) -> bool | None:
        """True where the simulation is as near as promised; None where nothing is."""
        if self.tolerance is None or self.simulated is None:
            return None
        return abs(self.simulated / self.measured - 1) <= self.tolerance


def hold(kept: Kept, rate: float) -> Outcome:
    """Simulate row 6 at a rate: the whole way, everything on one machine."""
    load = Load(rate * 3600, receiver_s=0.0)
    return Run(kept.costs, kept.bench, load, messages=TRIED_MESSAGES, conversations=kept.users).outcome()


def rate_held(kept: Kept) -> float:
    """Find the highest rate at which the simulation has a p99 as row 6 asks for, in messages a second."""
    full = model.capacity(kept.costs, kept.bench, Load(3600.0, receiver_s=0.0))
    good, bad = 0.3, 1.2
    while bad - good > PRECISION:
        part = (good + bad) / 2
        if hold(kept, part * full).p99_ms < HELD_S * 1000:
            good = part
        else:
            bad = part
    return good * full


def drain(kept: Kept, process: str) -> Outcome:
    """Simulate row 1 ("deliver") or row 3 ("bot"): one worker and queues that are full."""
    return Run(
        kept.costs_alone(process), kept.bench, Load(3600.0, receiver_s=0.0), messages=DRAINED_MESSAGES,
        conversations=kept.users, drain="out" if process == "deliver" else "in",
    ).outcome()  # fmt: skip


def scale_out(kept: Kept, workers: int) -> Outcome:
    """Simulate row 10: so many workers, each with few places, and an endpoint that takes its time."""
    return Run(
        kept.costs_alone("deliver"), replace(kept.bench, deliver=workers), Load(3600.0, receiver_s=kept.answer_s),
        messages=8_000, conversations=800, drain="out", places=kept.places,
    ).outcome()  # fmt: skip


def compare(kept: Kept) -> Iterator[Compared]:
    """Yield what was measured, beside what model and simulation say of it."""
    cores = kept.bench.machine_cores
    at_rest = Load(3600.0, receiver_s=0.0)
    full, held = model.capacity(kept.costs, kept.bench, at_rest), hold(kept, kept.held_per_s)
    cpu = "CPU of each step"
    yield Compared("row 6: held, p99 < 250 ms", "/s", kept.held_per_s, full, rate_held(kept), 0.15, cpu)
    yield Compared("p50 at that rate", "ms", kept.p50_ms, None, held.p50_ms, 0.3, "what others take")
    yield Compared("p99 at that rate", "ms", kept.p99_ms, None, held.p99_ms, 0.3, "what others take")
    busy = sum(kept.together_us.values()) * kept.held_per_s / cores / 1e4
    yield Compared("cores busy at that rate", "%", busy, None, held.busy["machine"] * 100, 0.05, cpu)
    one = Run(kept.costs, kept.bench, replace(at_rest, messages_per_hour=7200), messages=300).outcome()
    yield Compared("row 5: one message at a time, p50", "ms", kept.one_ms,
                   model.latency_s(kept.costs, at_rest) * 1000, one.p50_ms, None, "times of each step")  # fmt: skip
    for what, process in (("row 3: bot worker", "bot"), ("row 1: delivery worker", "deliver")):
        alone = kept.alone[process]
        most = 1e6 / max(alone.cpu_us[process], sum(alone.cpu_us.values()) / cores)
        yield Compared(
            what, "/s", alone.rate, most, drain(kept, process).rate_per_s, 0.15, "CPU of the worker"
        )
    each_s = kept.answer_s + kept.costs.post_s + kept.costs_alone("deliver").deliver_attempt_us / 1e6
    found = {}
    for workers, rate in kept.workers.items():
        found[workers] = scale_out(kept, workers).rate_per_s
        what = f"row 10: endpoint of {kept.answer_s * 1000:.0f} ms, {workers} worker{'s' * (workers > 1)}"
        yield Compared(what, "/s", rate, workers * kept.places / each_s, found[workers], 0.05)
    for workers in [number for number in kept.workers if number > 1]:
        measured = kept.workers[workers] / kept.workers[1]
        yield Compared(
            f"row 10: {workers} workers ÷ 1",
            "times",
            measured,
            float(workers),
            found[workers] / found[1],
            0.05,
        )


@dataclass(frozen=True, slots=True)
class Grown:
    """One load, what carries it, and how that does."""

    load: Load
    after: Deployment
    takes: Estimate
    busy: dict[str, float]
    #: Of one of the clusters, which are alike.
    outcome: Outcome


def grow(kept: Kept, messages_per_hour: float) -> Grown:
    """Compute what a load needs, and simulate one of the clusters in its busiest minutes."""
    load = Load(messages_per_hour, peak=PEAK)
    after = planning.needed(kept.costs, load, TARGET)
    # Clusters share nothing: one with its part of the load stands for all.
    part = replace(
        load,
        messages_per_hour=messages_per_hour / after.clusters,
        channels=load.channels // after.clusters,
    )
    messages = min(MOST_MESSAGES, max(TRIED_MESSAGES, int(part.rate)))
    outcome = Run(kept.costs, replace(after, clusters=1), part, messages=messages, zipf=ZIPF).outcome()
    takes = planning.estimate(kept.costs, after, load)
    return Grown(load, after, takes, model.utilisation(kept.costs, after, load), outcome)
