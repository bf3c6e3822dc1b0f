"""The capacity model: linear in the load, true to the code's limits, and what it says is needed is enough."""

import json
from dataclasses import fields, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench import costs as kept_costs
from bench import model, planning
from bench.model import Costs, Deployment, Load
from bench.planning import TooMuch
from broker.batching import Batcher
from broker.rabbitmq import acks, transport
from broker.registry.engine import DIRECT_POOL, POOL
from broker.settings import Settings
from consumers import delivery_log, in_flight, turn_writing
from consumers.assignment import assign

KEPT = kept_costs.read()
COSTS = KEPT.costs
#: Up to ten times as much, or little, as what is written down: measured costs may be anywhere there.
SCALES = st.floats(0.1, 10)
COST_SETS = st.builds(
    lambda cpu, wait, rate, follower: replace(
        COSTS,
        **{
            field.name: getattr(COSTS, field.name) * (cpu if field.name.endswith("_us") else wait)
            for field in fields(Costs)
            if field.name.endswith(("_us", "_s"))
        },
        partition_rate=COSTS.partition_rate * rate,
        follower_factor=follower,
    ),
    SCALES, SCALES, SCALES, st.floats(0, 1),
)  # fmt: skip
LOADS = st.builds(
    Load,
    messages_per_hour=st.floats(0, 1e8),
    peak=st.floats(1, 3),
    failing=st.floats(0, 0.5),
    responses=st.floats(0.5, 5),
    webhooks=st.integers(1, 5).map(float),
    receiver_s=st.floats(0, 0.5),
    bot_s=st.floats(0, 5),
    channels=st.just(100_000),
)
DEPLOYMENTS = st.builds(
    Deployment,
    partitions=st.integers(1, 100),
    api=st.integers(1, 50),
    bot=st.integers(1, 120),
    deliver=st.integers(1, 120),
    rabbitmq_nodes=st.sampled_from([1, 3, 5]),
    rabbitmq_cores=st.integers(1, 32),
    postgres_cores=st.integers(1, 64),
    clusters=st.integers(1, 10),
    machine_cores=st.integers(0, 64),
)
TARGETS = st.floats(0.1, 0.95)
SOME = settings(max_examples=100, deadline=None)


@SOME
@given(COST_SETS, DEPLOYMENTS, LOADS, st.floats(0, 100))
def test_utilisation_is_linear_in_the_load(
    costs: Costs, deployment: Deployment, load: Load, times: float
) -> None:
    once = model.utilisation(costs, deployment, load)
    more = replace(load, messages_per_hour=load.messages_per_hour * times)
    assert model.utilisation(costs, deployment, more) == pytest.approx(
        {name: busy * times for name, busy in once.items()}
    )


@SOME
@given(COST_SETS, DEPLOYMENTS, LOADS)
def test_at_capacity_one_resource_is_full_and_none_is_fuller(
    costs: Costs, deployment: Deployment, load: Load
) -> None:
    most = model.capacity(costs, deployment, load)
    busy = model.utilisation(costs, deployment, replace(load, messages_per_hour=most * 3600, peak=1.0))
    assert max(busy.values()) == pytest.approx(1)
    assert busy[model.first_to_saturate(costs, deployment, load)] == pytest.approx(1)


@SOME
@given(COST_SETS, LOADS, TARGETS)
def test_what_is_needed_is_enough(costs: Costs, load: Load, target: float) -> None:
    deployment = planning.needed(costs, load, target)
    busy = model.utilisation(costs, deployment, load)
    assert max(busy.values()) <= target
    assert max(deployment.bot, deployment.deliver) <= deployment.partitions <= 100


@SOME
@given(COST_SETS, LOADS, TARGETS, st.floats(0, 1))
def test_more_load_never_needs_less(costs: Costs, load: Load, target: float, part: float) -> None:
    less = planning.needed(costs, replace(load, messages_per_hour=load.messages_per_hour * part), target)
    more = planning.needed(costs, load, target)
    before, after = totals(less), totals(more)
    assert all(after[name] >= amount for name, amount in before.items()), (less, more)
    assert planning.estimate(costs, more, load).cores >= planning.estimate(costs, less, load).cores


def totals(deployment: Deployment) -> dict[str, int]:
    """Count what all clusters have together."""
    each = {
        "partitions": deployment.partitions,
        "api": deployment.api,
        "bot": deployment.bot,
        "deliver": deployment.deliver,
        "rabbitmq cores": deployment.rabbitmq_nodes * deployment.rabbitmq_cores,
        "postgres cores": deployment.postgres_cores,
        "clusters": 1,
    }
    return {name: amount * deployment.clusters for name, amount in each.items()}


@SOME
@given(COST_SETS, LOADS, TARGETS)
def test_what_is_needed_is_not_much_too_much(costs: Costs, load: Load, target: float) -> None:
    deployment = planning.needed(costs, load, target)
    if deployment.clusters > 1:
        return
    asked = model.work(costs, load)
    assert deployment.api <= asked.api / target + 1 + 1e-6
    # Whole partitions are shared out: at worst each worker might have taken almost one more.
    assert deployment.bot <= 2 * max(asked.bot.values()) / target + 1 + 1e-6
    assert deployment.deliver <= 2 * max(asked.deliver.values()) / target + 1 + 1e-6


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 100), st.integers(1, 40))
def test_the_busiest_workers_share_is_as_assignment_has_it(partitions: int, workers: int) -> None:
    shares = assign(partitions, [f"w{number}" for number in range(workers)])
    most = max(len(share) for share in shares.values())
    assert model.busiest_share(partitions, workers) == most / partitions


def test_the_limits_are_those_of_the_code() -> None:
    defaults = {name: field.default for name, field in Settings.model_fields.items()}
    assert defaults["prefetch"] == model.PREFETCH
    assert (defaults["max_in_flight"], defaults["max_in_flight_per_webhook"]) == (
        model.PLACES,
        model.PLACES_EACH,
    )
    assert defaults["partitions"] == Deployment().partitions == planning.PARTITIONS[0]
    assert in_flight.PATIENCE_S == model.PATIENCE_S
    assert Batcher(lambda _: None)._limit == model.TURNS_A_BATCH  # type: ignore[arg-type,return-value]
    assert (delivery_log.ROWS_A_BATCH, delivery_log.MOST_WAITING) == (model.ROWS_A_BATCH, model.ROWS_KEPT)
    assert delivery_log.LINGER_S == model.LINGER_S
    assert (turn_writing.BUSY_LINGER_S, turn_writing.MARK_LINGER_S) == (
        model.BUSY_LINGER_S,
        model.MARK_LINGER_S,
    )
    assert (transport.LINGER_S, acks.PATIENCE_S) == (model.ACK_LINGER_S, model.ACK_PATIENCE_S)
    assert POOL + DIRECT_POOL == planning.CONNECTIONS


def test_every_cost_says_where_it_comes_from() -> None:
    written = json.loads(kept_costs.FILE.read_text())["costs"]
    assert set(written) == {field.name for field in fields(Costs)}
    assert all(entry["source"].startswith(("measured", "assumption", "fitted")) for entry in written.values())


def test_one_channel_cannot_be_split_over_clusters() -> None:
    with pytest.raises(TooMuch, match="channels"):
        planning.needed(COSTS, Load(1e9, channels=1))


def test_one_webhook_cannot_have_more_in_flight_than_one_cluster_allows() -> None:
    with pytest.raises(TooMuch, match="webhook"):
        planning.needed(COSTS, Load(1e7, receiver_s=0.9, channels=1))


def test_a_receiver_that_takes_longer_fills_its_places_in_proportion() -> None:
    quick, slow = (
        model.utilisation(COSTS, Deployment(), Load(1e4, receiver_s=receiver_s))["places of a webhook"]
        for receiver_s in (0.9, 1.1)
    )
    assert slow == pytest.approx(quick * 1.1 / 0.9, rel=0.02)


def test_memory_grows_with_what_is_there() -> None:
    small, large = (
        sum(planning.memory(COSTS, each, Load(1e4)).values())
        for each in (Deployment(), Deployment(bot=4, deliver=4))
    )
    assert large > small


@SOME
@given(COST_SETS, DEPLOYMENTS, LOADS, st.sampled_from(["api", "bot", "deliver", "clusters"]))
def test_another_worker_or_cluster_never_carries_less(
    costs: Costs, deployment: Deployment, load: Load, kind: str
) -> None:
    apart = replace(deployment, machine_cores=0)
    more = replace(apart, **{kind: getattr(apart, kind) + 1})
    assert model.capacity(costs, more, load) >= model.capacity(costs, apart, load) * (1 - 1e-9)


@SOME
@given(COST_SETS, DEPLOYMENTS, LOADS, st.sampled_from(["rabbitmq_cores", "postgres_cores", "machine_cores"]))
def test_more_cores_never_carry_less(costs: Costs, deployment: Deployment, load: Load, kind: str) -> None:
    some = replace(deployment, machine_cores=max(1, deployment.machine_cores))
    more = replace(some, **{kind: getattr(some, kind) + 1})
    assert model.capacity(costs, more, load) >= model.capacity(costs, some, load) * (1 - 1e-9)


@SOME
@given(COST_SETS, LOADS)
def test_twice_the_load_asks_for_twice_the_work(costs: Costs, load: Load) -> None:
    once, twice = (
        model.work(costs, replace(load, messages_per_hour=load.messages_per_hour * times)) for times in (1, 2)
    )
    assert twice.bot == pytest.approx({name: 2 * amount for name, amount in once.bot.items()})
    assert (twice.api, twice.rabbitmq, twice.postgres) == pytest.approx(
        (2 * once.api, 2 * once.rabbitmq, 2 * once.postgres)
    )


def test_the_peak_is_what_has_to_be_carried_and_the_average_is_what_fills_the_disk() -> None:
    flat, peaked = Load(1e6), Load(1e6, peak=3.0)
    assert peaked.rate == pytest.approx(3 * flat.rate)
    disks = [planning.estimate(COSTS, Deployment(), load).disk_gb_a_day for load in (flat, peaked)]
    assert disks[0] == disks[1] > 0


def test_what_fails_is_delivered_twice_over_and_leaves_the_bot_alone() -> None:
    well, ill = (model.work(COSTS, Load(1e6, failing=failing)) for failing in (0.0, 0.5))
    assert ill.bot == well.bot
    assert ill.deliver["log writes"] == pytest.approx(1.5 * well.deliver["log writes"])


def test_what_to_change_names_every_step() -> None:
    assert list(planning.changes(Deployment(), Deployment())) == []
    said = list(planning.changes(Deployment(), Deployment(64, 9, 32, 64, 3, 8, 16, 2)))
    assert said == [
        "2 clusters by channel, each with:",
        "POSTBOTE_PARTITIONS=64 (new queues)",
        "--scale api=9",
        "--scale bot=32",
        "--scale deliver=64",
        "RabbitMQ: 3 × 8 cores",
        "PostgreSQL: 16 cores",
        "max_connections 1050 or more",
    ]
