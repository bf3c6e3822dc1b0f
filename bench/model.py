"""The capacity model: how busy each resource is at a load, which one is full first, and what a load needs.

Pure arithmetic on averages. Busy fractions are linear in the load; waiting and its tails are what `bench.simulate`
is for. It tells of healthy receivers: what fails leaves the queues for the backlog, and is not counted here.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

#: Limits of the code, as they stand in broker and consumers; a test holds them against each other.
PREFETCH, PLACES, PLACES_EACH, PLACES_SLOW = 200, 512, 64, 4
TURNS_A_BATCH, ROWS_A_BATCH, ROWS_KEPT = 256, 500, 50_000
PATIENCE_S, LINGER_S = 1.0, 0.05
CONNECTIONS = 10
#: Assumption: of a turn's work in PostgreSQL, what its commit takes; its load and its mark take a quarter each.
COMMIT_PART = 0.5
#: Assumption: members of a quorum queue, where the cluster has as many nodes.
REPLICAS = 3
#: What `needed` chooses from, smallest first. Powers of two, so that workers can have even shares; at most 100.
PARTITIONS = (16, 32, 64)
#: Nodes and cores of each. Assumption: beyond five nodes of 16 cores, another cluster serves better.
RABBITMQ = ((1, 2), (1, 4), (3, 4), (3, 8), (3, 16), (5, 16))
#: Assumption: one PostgreSQL makes use of up to 64 cores.
POSTGRES_CORES = (2, 4, 8, 16, 32, 64)


class TooMuch(ValueError):
    """No number of workers, servers or clusters carries this load."""


@dataclass(frozen=True, slots=True)
class Costs:
    """What one unit of work costs: `_us` is CPU time in microseconds, `_s` seconds of waiting without CPU."""

    #: The API, for one message accepted.
    api_us: float
    #: The bot worker, for one message, and beside that for each of its responses.
    bot_turn_us: float
    bot_response_us: float
    #: The delivery worker, for one response taken, and beside that for each attempt, its log row included.
    deliver_response_us: float
    deliver_attempt_us: float
    #: A RabbitMQ of one node, for one message through one queue: publish, confirm, deliver, acknowledge.
    rabbitmq_us: float
    #: PostgreSQL, for one turn (load, commit, mark), and for one row of the delivery log.
    postgres_turn_us: float
    postgres_delivery_us: float
    #: What sends and receives in a measurement, where it shares the machine.
    sender_us: float
    receiver_us: float
    #: What each follower of a quorum queue spends on a message, as a part of `rabbitmq_us` (0 to 1).
    follower_factor: float
    #: Messages a second that one single-active-consumer queue carries through one worker.
    partition_rate: float
    #: Publish to confirm; one read; one transaction's commit; one POST to a receiver that answers at once.
    confirm_s: float
    query_s: float
    commit_s: float
    post_s: float
    #: Memory at rest in MB: a worker or API process, a RabbitMQ node, PostgreSQL, one connection to it.
    process_mb: float
    rabbitmq_mb: float
    postgres_mb: float
    connection_mb: float
    #: Memory in bytes: a lane at work, a message in hand, a log row that waits for the database.
    lane_bytes: float
    message_bytes: float
    row_bytes: float
    #: On PostgreSQL's disk, indexes included: a turn, a delivery.
    turn_disk_bytes: float
    delivery_disk_bytes: float


@dataclass(frozen=True, slots=True)
class Deployment:
    """What runs, in each of `clusters` clusters that share out the channels; the defaults are compose.yaml's."""

    #: 1 to 100, and fixed for the life of the queues.
    partitions: int = 16
    api: int = 1
    bot: int = 1
    deliver: int = 1
    rabbitmq_nodes: int = 1
    #: Of each node.
    rabbitmq_cores: int = 2
    postgres_cores: int = 2
    clusters: int = 1
    #: Where all of it, sender and receiver included, shares one machine: its cores. 0: each has its own.
    machine_cores: int = 0


@dataclass(frozen=True, slots=True)
class Load:
    """What comes in, in all clusters together, spread over the channels evenly."""

    messages_per_hour: float
    #: Responses to each message, and webhooks that want each response.
    responses: float = 1.0
    webhooks: float = 1.0
    #: Until a webhook answers, and until the bot does, in seconds.
    receiver_s: float = 0.1
    bot_s: float = 0.0
    channels: int = 1000
    #: Assumption: the busiest partition's share, as a multiple of the mean (1 or more).
    skew: float = 1.25

    @property
    def rate(self) -> float:
        """Messages a second."""
        return self.messages_per_hour / 3600


@dataclass(frozen=True, slots=True)
class Work:
    """What a load asks of one cluster, in units that are full at 1 for each server, worker or partition."""

    api: float
    #: By name, what is shared out over the bot workers, the delivery workers, and the partitions.
    bot: dict[str, float]
    deliver: dict[str, float]
    partitions: dict[str, float]
    #: Cores of a RabbitMQ of one node, and cores of PostgreSQL.
    rabbitmq: float
    postgres: float
    #: Cores of what sends and receives in a measurement.
    harness: float


def work(costs: Costs, load: Load, clusters: int = 1) -> Work:
    """Add up what a load asks of each of so many clusters."""
    messages = load.rate / clusters
    responses = messages * load.responses
    deliveries = responses * load.webhooks
    hold_s = costs.post_s + load.receiver_s
    # A batch that runs is waited for, by half of its time on average.
    turn_s = 1.5 * (costs.query_s + 2 * costs.commit_s) + load.bot_s + load.responses * costs.confirm_s
    # A channel is whole in its cluster, so more clusters leave a webhook with what it gets.
    each_webhook = load.rate * load.responses / load.channels
    places_each = PLACES_EACH if hold_s < PATIENCE_S else PLACES_SLOW
    return Work(
        api=messages * costs.api_us / 1e6,
        bot={
            "bot": (messages * costs.bot_turn_us + responses * costs.bot_response_us) / 1e6,
            "turn writes": messages
            * (costs.commit_s / TURNS_A_BATCH + COMMIT_PART * costs.postgres_turn_us / 1e6),
        },
        deliver={
            "deliver": (responses * costs.deliver_response_us + deliveries * costs.deliver_attempt_us) / 1e6,
            "log writes": deliveries * (costs.commit_s / ROWS_A_BATCH + costs.postgres_delivery_us / 1e6),
            "places": deliveries * min(hold_s, PATIENCE_S) / PLACES,
            "places of a webhook": each_webhook * hold_s / places_each,
        },
        partitions={
            "inbound queue": load.skew * messages / costs.partition_rate,
            "inbound prefetch": load.skew * messages * turn_s / PREFETCH,
            "outbound queue": load.skew * responses / costs.partition_rate,
            "outbound prefetch": load.skew * responses * hold_s / PREFETCH,
        },
        rabbitmq=(messages + responses) * costs.rabbitmq_us / 1e6,
        postgres=(messages * costs.postgres_turn_us + deliveries * costs.postgres_delivery_us) / 1e6,
        harness=(messages * costs.sender_us + deliveries * costs.receiver_us) / 1e6,
    )


def replication(costs: Costs, nodes: int) -> float:
    """Return the CPU time of a message on all nodes together, as a multiple of that on a single node.

    A quorum queue's leader has the message written by a majority before it confirms, and all its followers write
    it in the end. Assumption: each spends `follower_factor` of what a single node does; leaders are spread evenly.
    """
    return 1 + (min(nodes, REPLICAS) - 1) * costs.follower_factor


def busiest_share(partitions: int, workers: int) -> float:
    """Return the share of the worker with most partitions; nobody has more than one above another."""
    return math.ceil(partitions / workers) / partitions


def utilisation(costs: Costs, deployment: Deployment, load: Load) -> dict[str, float]:
    """Return the busy fraction of every resource, of the busiest where there are several; 1 is full."""
    asked = work(costs, load, deployment.clusters)
    bot = busiest_share(deployment.partitions, deployment.bot)
    deliver = busiest_share(deployment.partitions, deployment.deliver)
    rabbitmq = asked.rabbitmq * replication(costs, deployment.rabbitmq_nodes)
    busy = {
        "api": asked.api / deployment.api,
        **{name: amount * bot for name, amount in asked.bot.items()},
        **{name: amount * deliver for name, amount in asked.deliver.items()},
        **{name: amount / deployment.partitions for name, amount in asked.partitions.items()},
        "rabbitmq": rabbitmq / (deployment.rabbitmq_nodes * deployment.rabbitmq_cores),
        "postgres": asked.postgres / deployment.postgres_cores,
    }
    if deployment.machine_cores:
        cores = (
            asked.api + asked.bot["bot"] + asked.deliver["deliver"]
            + rabbitmq + asked.postgres + asked.harness
        )  # fmt: skip
        busy["machine"] = cores / deployment.machine_cores
    return busy


def first_to_saturate(costs: Costs, deployment: Deployment, load: Load) -> str:
    """Name the resource that is full first as a load of this kind grows."""
    busy = utilisation(costs, deployment, replace(load, messages_per_hour=3600.0))
    return max(busy, key=lambda name: busy[name])


def capacity(costs: Costs, deployment: Deployment, load: Load) -> float:
    """Return the messages a second at which the first resource is full, for a load of this kind."""
    return 1 / max(utilisation(costs, deployment, replace(load, messages_per_hour=3600.0)).values())


def latency_s(costs: Costs, deployment: Deployment, load: Load) -> float:
    """Estimate the mean time in seconds from the sender's POST until a webhook has the answer; infinite when full.

    The waits without CPU, and each station's CPU time drawn out by 1/(1 - busy), as in an M/M/1 queue.
    """
    busy = utilisation(costs, deployment, load)
    if max(busy.values()) >= 1:
        return math.inf
    machine = busy.get("machine", 0.0)
    bot_us = costs.bot_turn_us + costs.bot_response_us
    deliver_us = costs.deliver_response_us + costs.deliver_attempt_us / 2
    stations = (
        ("api", costs.api_us),
        ("bot", bot_us),
        ("deliver", deliver_us),
        ("rabbitmq", 2 * costs.rabbitmq_us * replication(costs, deployment.rabbitmq_nodes)),
        ("postgres", costs.postgres_turn_us * (1 - (1 - COMMIT_PART) / 2)),
    )
    waits_s = 1.5 * (costs.query_s + costs.commit_s) + load.bot_s + 2 * costs.confirm_s + costs.post_s
    return waits_s + sum(us / 1e6 / (1 - max(busy[name], machine)) for name, us in stations)


def needed(costs: Costs, load: Load, target_utilisation: float = 0.6) -> Deployment:
    """Return the smallest deployment of the steps above in which nothing is busier than the target (0 to 1).

    Beyond one cluster's reach it is several alike, with channels shared out among them; together they have no less
    than what was there before the last was added. Raises TooMuch where channels cannot be shared out so.
    """
    target = target_utilisation * (1 - 1e-9)  # so that rounding never ends just above the target
    nodes, cores = RABBITMQ[-1]
    most = PARTITIONS[-1]
    largest = Deployment(most, 10**9, most, most, nodes, cores, POSTGRES_CORES[-1])
    # One webhook's share is no reason for a cluster more, which would not lessen it.
    reach = target * (1 - 1e-9) * capacity(costs, largest, replace(load, channels=10**12))
    clusters = max(1, math.ceil(load.rate / reach))
    if clusters > load.channels:
        raise TooMuch(f"{load.channels} channels cannot be shared out over {clusters} clusters")
    of_webhook = work(costs, load).deliver["places of a webhook"]
    found = _cluster(costs, work(costs, load, clusters), of_webhook, target)
    if clusters == 1:
        return found
    full = _cluster(costs, work(costs, replace(load, messages_per_hour=reach * 3600)), of_webhook, target)
    kept = (clusters - 1) / clusters
    nodes, cores = _first_node_size(max(_cores(found), kept * _cores(full)))
    return Deployment(
        partitions=_first(PARTITIONS, max(found.partitions, kept * full.partitions)),
        api=max(found.api, math.ceil(kept * full.api)),
        bot=max(found.bot, math.ceil(kept * full.bot)),
        deliver=max(found.deliver, math.ceil(kept * full.deliver)),
        rabbitmq_nodes=nodes,
        rabbitmq_cores=cores,
        postgres_cores=_first(POSTGRES_CORES, max(found.postgres_cores, kept * full.postgres_cores)),
        clusters=clusters,
    )


def _cluster(costs: Costs, asked: Work, of_webhook: float, target: float) -> Deployment:
    bot_partitions, bot = _workers(max(asked.bot.values()), target)
    deliver_partitions, deliver = _workers(max(*asked.deliver.values(), of_webhook), target)
    least = max(bot_partitions, deliver_partitions, max(asked.partitions.values()) / target)
    nodes, cores = next(
        (nodes, cores)
        for nodes, cores in RABBITMQ
        if asked.rabbitmq * replication(costs, nodes) <= target * nodes * cores
    )
    return Deployment(
        partitions=_first(PARTITIONS, least),
        api=max(1, math.ceil(asked.api / target)),
        bot=bot,
        deliver=deliver,
        rabbitmq_nodes=nodes,
        rabbitmq_cores=cores,
        postgres_cores=_first(POSTGRES_CORES, asked.postgres / target),
    )


def _first(sizes: tuple[int, ...], least: float) -> int:
    return next(size for size in sizes if size >= least)


def _cores(deployment: Deployment) -> int:
    return deployment.rabbitmq_nodes * deployment.rabbitmq_cores


def _first_node_size(least: float) -> tuple[int, int]:
    return next((nodes, cores) for nodes, cores in RABBITMQ if nodes * cores >= least)


def _workers(amount: float, target: float) -> tuple[int, int]:
    """Return the partitions and the workers among whom an amount of work leaves none busier than the target."""
    for partitions in PARTITIONS:
        each = math.floor(min(partitions, target * partitions / amount)) if amount else partitions
        if each:
            return partitions, math.ceil(partitions / each)
    raise TooMuch("one webhook gets more than the delivery workers of one cluster may have in flight")


def changes(before: Deployment, after: Deployment) -> Iterator[str]:
    """Say what an operator changes to come from one deployment to another."""
    if after.clusters > 1:
        yield f"{after.clusters} clusters by channel, each with:"
    if after.partitions != before.partitions:
        yield f"POSTBOTE_PARTITIONS={after.partitions} (new queues)"
    for kind in ("api", "bot", "deliver"):
        if getattr(after, kind) != getattr(before, kind):
            yield f"--scale {kind}={getattr(after, kind)}"
    if (after.rabbitmq_nodes, after.rabbitmq_cores) != (before.rabbitmq_nodes, before.rabbitmq_cores):
        yield f"RabbitMQ: {after.rabbitmq_nodes} × {after.rabbitmq_cores} cores"
    if after.postgres_cores != before.postgres_cores:
        yield f"PostgreSQL: {after.postgres_cores} cores"
    if (number := connections(after)) > 100:
        yield f"max_connections {number} or more, or a pooler"


def connections(deployment: Deployment) -> int:
    """Return how many connections each cluster's PostgreSQL has to allow."""
    return CONNECTIONS * (deployment.api + deployment.bot + deployment.deliver)


def memory(costs: Costs, deployment: Deployment, load: Load) -> dict[str, float]:
    """Return what each kind of process needs in MB, all clusters together, at the worst that its limits allow.

    The worst is every prefetch full, a lane to each message, and the log's rows waiting for a database that is away.
    """
    in_hand = deployment.partitions * PREFETCH
    lanes = in_hand * (costs.lane_bytes + costs.message_bytes) / 1e6
    deliver_lanes = in_hand * (costs.lane_bytes * load.webhooks + costs.message_bytes) / 1e6
    rows = ROWS_KEPT * costs.row_bytes / 1e6
    each = {
        "api": deployment.api * costs.process_mb,
        "bot": deployment.bot * costs.process_mb + lanes,
        "deliver": deployment.deliver * (costs.process_mb + rows) + deliver_lanes,
        "rabbitmq": deployment.rabbitmq_nodes * costs.rabbitmq_mb,
        "postgres": costs.postgres_mb + connections(deployment) * costs.connection_mb,
    }
    return {kind: deployment.clusters * megabytes for kind, megabytes in each.items()}


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a deployment takes, all clusters together: cores and memory provided, and disk that fills in a day."""

    cores: int
    memory_gb: float
    postgres_gb_a_day: float


def estimate(costs: Costs, deployment: Deployment, load: Load) -> Estimate:
    """Add up what a deployment takes; each process counts as one core, for it uses no more."""
    each = deployment.api + deployment.bot + deployment.deliver + deployment.postgres_cores
    cores = deployment.clusters * (each + deployment.rabbitmq_nodes * deployment.rabbitmq_cores)
    turn = costs.turn_disk_bytes + load.responses * load.webhooks * costs.delivery_disk_bytes
    disk = load.messages_per_hour * 24 * turn / 1e9
    return Estimate(cores, sum(memory(costs, deployment, load).values()) / 1000, disk)
