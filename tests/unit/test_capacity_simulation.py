"""The simulator: its queues wait as theory says, and the whole pipeline does what its parts have to add up to."""

import random
from dataclasses import replace
from typing import Any

import pytest
import simpy

from bench import costs as kept_costs
from bench import model
from bench.model import Deployment, Load
from bench.pipeline import Run
from bench.stations import SHAPE, Machine, Station

KEPT = kept_costs.read()


class World:
    """As much of a run as a station looks at."""

    def __init__(self) -> None:
        self.env = simpy.Environment()
        self.chance = random.Random(7)


def mean_wait_s(world: Any, station: Station, rate: float, service_s: float, jobs: int) -> float:
    """Send jobs as a Poisson process; returns the mean time from arrival to end, less the service."""
    waits: list[float] = []

    def job() -> Any:
        came = world.env.now
        yield station.serve(service_s)
        waits.append(world.env.now - came)

    def arrivals() -> Any:
        for _ in range(jobs):
            yield world.env.timeout(world.chance.expovariate(rate))
            world.env.process(job())

    world.env.process(arrivals())
    while len(waits) < jobs:
        world.env.step()
    return sum(waits) / jobs - service_s


@pytest.mark.parametrize("shared", [False, True], ids=["own core", "shared machine"])
def test_one_server_waits_as_pollaczek_and_khinchine_say(shared: bool) -> None:
    # With 20,000 jobs at 60 % the standard error of the mean wait is about 2 %; four of them.
    rate, service_s = 600.0, 0.001
    world: Any = World()
    station = Station(world, 1, Machine(world, 1, 0.0) if shared else None)
    busy, variation = rate * service_s, 1 / SHAPE
    expected_s = busy / (1 - busy) * (1 + variation) / 2 * service_s
    assert mean_wait_s(world, station, rate, service_s, 20_000) == pytest.approx(expected_s, rel=0.08)


def test_a_machines_cores_are_shared_by_all_and_others_take_their_part() -> None:
    world: Any = World()
    machine = Machine(world, 2, 0.25)
    stations = [Station(world, 1, machine) for _ in range(4)]
    for station in stations:
        for _ in range(2_500):
            station.serve(0.001)
    world.env.run(until=2.0)
    # All want a core at all times: two cores for two seconds, less a fifth or so, as others queue for theirs too.
    assert machine.busy_s <= 4.0
    assert machine.busy_s == pytest.approx(4.0 * 0.75, rel=0.1)
    assert machine.busy_s == pytest.approx(sum(station.busy_s for station in stations))


def test_the_same_seed_is_the_same_run() -> None:
    first, again, other = (
        Run(KEPT.costs, KEPT.bench, Load(3600.0 * 200), messages=400, seed=seed).outcome()
        for seed in (1, 1, 2)
    )
    assert first == again != other


def test_what_comes_goes_and_is_as_busy_as_the_model_says() -> None:
    deployment, load = Deployment(), Load(3600.0 * 400, receiver_s=0.02)
    found = Run(KEPT.costs, deployment, load, messages=4_000).outcome()
    expected = model.utilisation(KEPT.costs, deployment, load)
    # 3,200 Poisson arrivals differ from their mean by 1.8 %; three of them.
    assert found.rate_per_s == pytest.approx(400, rel=0.055)
    for name in ("api", "bot", "deliver", "rabbitmq"):
        assert found.busy[name] == pytest.approx(expected[name], rel=0.1), name


def test_one_message_takes_what_its_steps_add_up_to() -> None:
    # At two a second hardly ever two meet; service times vary by half, which cancels over ten of them.
    load = Load(3600.0 * 2, receiver_s=0.0)
    found = Run(KEPT.costs, Deployment(), load, messages=200).outcome()
    assert found.p50_ms == pytest.approx(model.latency_s(KEPT.costs, load) * 1000, rel=0.15)


def test_workers_that_wait_for_their_endpoint_scale_out() -> None:
    load = Load(3600.0, receiver_s=0.05)
    rates = [
        Run(
            KEPT.costs, Deployment(deliver=workers), load, messages=600 * workers, conversations=400,
            drain="out", places=8,
        ).outcome().rate_per_s
        for workers in (1, 2)
    ]  # fmt: skip
    assert rates[0] == pytest.approx(8 / (0.05 + KEPT.costs.post_s), rel=0.15)
    assert rates[1] / rates[0] == pytest.approx(2, rel=0.15)


def test_one_conversation_goes_no_faster_than_its_lane() -> None:
    load = replace(Load(3600.0), receiver_s=0.0, bot_s=0.1)
    found = Run(KEPT.costs, Deployment(), load, messages=100, conversations=1, drain="in").outcome()
    assert found.rate_per_s <= 1.3 / 0.1
