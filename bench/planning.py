"""What a load needs: the smallest deployment that carries it, what it takes, and what an operator changes."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

from bench import model
from bench.model import Costs, Deployment, Load, Work

#: What `needed` chooses from, smallest first. Powers of two, so that workers can have even shares; at most 100.
PARTITIONS = (16, 32, 64)
#: Nodes and cores of each. Assumption: beyond five nodes of 16 cores, another cluster serves better.
RABBITMQ = ((1, 2), (1, 4), (3, 4), (3, 8), (3, 16), (5, 16))
#: Assumption: one PostgreSQL makes use of up to 64 cores.
POSTGRES_CORES = (2, 4, 8, 16, 32, 64)
#: The most that one cluster is given; of API processes there may be any number.
LARGEST = Deployment(PARTITIONS[-1], 10**9, PARTITIONS[-1], PARTITIONS[-1], *RABBITMQ[-1], POSTGRES_CORES[-1])
#: Of each process, to PostgreSQL.
CONNECTIONS = 10
#: Assumption: what one message takes on the wire each time that it is sent, in bytes.
WIRE_BYTES = 1500


class TooMuch(ValueError):
    """No number of workers, servers or clusters carries this load."""


def needed(costs: Costs, load: Load, target_utilisation: float = 0.6) -> Deployment:
    """Return the smallest deployment of the steps above in which nothing is busier than the target (0 to 1).

    Beyond one cluster's reach it is several alike, with channels shared out among them; together they have no less
    than what was there before the last was added. Raises TooMuch where channels cannot be shared out so.
    """
    target = target_utilisation * (1 - 1e-9)  # so that rounding never ends just above the target
    # One webhook's share is no reason for a cluster more, which would not lessen it.
    reach = target * (1 - 1e-9) * model.capacity(costs, LARGEST, replace(load, channels=10**12))
    clusters = max(1, math.ceil(load.rate / reach))
    if clusters > load.channels:
        raise TooMuch(f"{load.channels} channels cannot be shared out over {clusters} clusters")
    of_webhook = model.work(costs, load).deliver["places of a webhook"]
    found = _cluster(costs, model.work(costs, load, clusters), of_webhook, target)
    if clusters == 1:
        return found
    full = _cluster(
        costs, model.work(costs, replace(load, messages_per_hour=reach * 3600, peak=1.0)), of_webhook, target
    )
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
        if asked.rabbitmq * model.replication(costs, nodes) <= target * nodes * cores
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
        yield f"max_connections {number} or more"


def connections(deployment: Deployment) -> int:
    """Return how many connections each cluster's PostgreSQL has to allow."""
    return CONNECTIONS * (deployment.api + deployment.bot + deployment.deliver)


def memory(costs: Costs, deployment: Deployment, load: Load) -> dict[str, float]:
    """Return what each kind of process needs in MB, all clusters together, at the worst that its limits allow.

    The worst is every prefetch full, a lane to each message, and the log's rows waiting for a database that is away.
    """
    in_hand = deployment.partitions * model.PREFETCH
    lanes = in_hand * (costs.lane_bytes + costs.message_bytes) / 1e6
    deliver_lanes = in_hand * (costs.lane_bytes * load.webhooks + costs.message_bytes) / 1e6
    rows = model.ROWS_KEPT * costs.row_bytes / 1e6
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
    """What a deployment takes, all clusters together: cores and memory provided, disk and network used."""

    cores: int
    memory_gb: float
    #: On PostgreSQL's disk, for good: nothing is deleted.
    disk_gb_a_day: float
    #: Written to its log and let go again; replicas and backups receive it.
    wal_gb_a_day: float
    #: Between all of them, in the busiest minutes.
    network_mbit: float


def estimate(costs: Costs, deployment: Deployment, load: Load) -> Estimate:
    """Add up what a deployment takes; each process counts as one core, for it uses no more."""
    each = deployment.api + deployment.bot + deployment.deliver + deployment.postgres_cores
    cores = deployment.clusters * (each + deployment.rabbitmq_nodes * deployment.rabbitmq_cores)
    fan_out = load.responses * load.webhooks
    turn = costs.turn_disk_bytes + fan_out * costs.delivery_disk_bytes
    daily = load.messages_per_hour * 24 / 1e9
    # In by HTTP, into a queue, to its followers, out of it; to the database and to the webhooks.
    members = min(deployment.rabbitmq_nodes, model.REPLICAS)
    sent = 1 + (1 + load.responses) * (members + 1) + 1 + fan_out
    return Estimate(
        cores=cores,
        memory_gb=sum(memory(costs, deployment, load).values()) / 1000,
        disk_gb_a_day=daily * turn,
        wal_gb_a_day=daily * costs.wal_bytes,
        network_mbit=load.rate * sent * WIRE_BYTES * 8 / 1e6,
    )
