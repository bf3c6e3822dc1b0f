"""The capacity model: how busy each resource is at a load, and which one is full first.

Pure arithmetic on averages. Busy fractions are linear in the load; waiting and its tails are what `bench.simulate`
is for, and what a load needs what `bench.planning` is for.
"""

import math
from dataclasses import dataclass, replace

#: Limits of the code, as they stand in broker and consumers; a test holds them against each other.
PREFETCH, PLACES, PLACES_EACH = 200, 512, 64
TURNS_A_BATCH, ROWS_A_BATCH, ROWS_KEPT = 256, 500, 50_000
PATIENCE_S, LINGER_S = 1.0, 0.05
BUSY_LINGER_S, MARK_LINGER_S, ACK_LINGER_S, ACK_PATIENCE_S = 0.02, 0.02, 0.04, 0.25
#: Assumption: of a turn's work in PostgreSQL, what its commit takes; its mark takes the rest.
COMMIT_PART = 0.75
#: Assumption: members of a quorum queue, where the cluster has as many nodes.
REPLICAS = 3


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
    #: A RabbitMQ of one node, for one message: to take and confirm it, and to deliver it and hear that it is done.
    rabbitmq_publish_us: float
    rabbitmq_take_us: float
    #: PostgreSQL, for one turn (load, commit, mark), and for one row of the delivery log.
    postgres_turn_us: float
    postgres_delivery_us: float
    #: What sends and receives in a measurement, where it shares the machine.
    sender_us: float
    receiver_us: float
    #: What each follower of a quorum queue spends on a message, as a part of what a single node does (0 to 1).
    follower_factor: float
    #: Messages a second that one single-active-consumer queue carries through one worker.
    partition_rate: float
    #: Publish to confirm; one transaction's commit; one POST to a receiver that answers at once.
    confirm_s: float
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
    #: On PostgreSQL's disk, indexes included: a turn, a delivery; and what a message writes to its log (WAL).
    turn_disk_bytes: float
    delivery_disk_bytes: float
    wal_bytes: float
    #: Of the cores of one machine that all share, what others take: its kernel, its other guests (0 to 1).
    others: float

    @property
    def rabbitmq_us(self) -> float:
        """CPU of a RabbitMQ of one node for one message through one queue."""
        return self.rabbitmq_publish_us + self.rabbitmq_take_us


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

    #: On average, and how many times as much in the busiest minutes, which is what has to be carried.
    messages_per_hour: float
    peak: float = 1.0
    #: Responses to each message, and webhooks that want each response.
    responses: float = 1.0
    webhooks: float = 1.0
    #: The part of the deliveries that fail and wait in the backlog (0 to 1).
    failing: float = 0.0
    #: Until a webhook answers, and until the bot does, in seconds.
    receiver_s: float = 0.1
    bot_s: float = 0.0
    channels: int = 1000
    #: Assumption: the busiest partition's share, as a multiple of the mean (1 or more).
    skew: float = 1.25

    @property
    def rate(self) -> float:
        """Messages a second in the busiest minutes."""
        return self.messages_per_hour * self.peak / 3600


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
    # What fails is handled twice: once into the backlog, and once out of it, which costs as much (row 12).
    deliveries = responses * load.webhooks * (1 + load.failing)
    hold_s = costs.post_s + load.receiver_s
    turn_s = turn_seconds(costs, load)
    # A channel is whole in its cluster, so more clusters leave a webhook with what it gets.
    each_webhook = load.rate * load.responses / load.channels
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
            "places of a webhook": each_webhook * hold_s / PLACES_EACH,
        },
        partitions={
            "inbound queue": load.skew * messages / costs.partition_rate,
            "inbound prefetch": load.skew * messages * in_hand_seconds(turn_s + MARK_LINGER_S) / PREFETCH,
            "outbound queue": load.skew * responses / costs.partition_rate,
            "outbound prefetch": load.skew * responses * in_hand_seconds(hold_s) / PREFETCH,
        },
        rabbitmq=(messages + responses) * costs.rabbitmq_us / 1e6,
        postgres=(messages * costs.postgres_turn_us + deliveries * costs.postgres_delivery_us) / 1e6,
        harness=(messages * costs.sender_us + deliveries * costs.receiver_us) / 1e6,
    )


def in_hand_seconds(works_s: float) -> float:
    """Return how long a message that is worked on for so long is unacknowledged, in seconds.

    It then waits for company, and for older ones where these take longer than is waited for them: of quicker ones,
    so many are settled meanwhile that they are acknowledged without.
    """
    return works_s + ACK_LINGER_S + (ACK_PATIENCE_S if works_s > ACK_PATIENCE_S else 0.0)


def turn_seconds(costs: Costs, load: Load) -> float:
    """Return how long a conversation is at one message, on a bot worker that has others too, in seconds.

    Its conversation is remembered. The commit waits for company, then for half of a transaction that runs and for its
    own.
    """
    waits_s = BUSY_LINGER_S + 1.5 * costs.commit_s
    cpu_s = (costs.bot_turn_us + load.responses * costs.bot_response_us) / 1e6
    return waits_s + cpu_s + load.bot_s + load.responses * costs.confirm_s


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
        busy["machine"] = cores / (deployment.machine_cores * (1 - costs.others))
    return busy


def one_a_second(load: Load) -> Load:
    """Return a load of the same kind, of one message a second."""
    return replace(load, messages_per_hour=3600.0, peak=1.0)


def first_to_saturate(costs: Costs, deployment: Deployment, load: Load) -> str:
    """Name the resource that is full first as a load of this kind grows."""
    busy = utilisation(costs, deployment, one_a_second(load))
    return max(busy, key=lambda name: busy[name])


def capacity(costs: Costs, deployment: Deployment, load: Load) -> float:
    """Return the messages a second at which the first resource is full, for a load of this kind."""
    return 1 / max(utilisation(costs, deployment, one_a_second(load)).values())


def latency_s(costs: Costs, load: Load) -> float:
    """Return the time in seconds from the sender's POST until a webhook has the answer, where nothing waits."""
    cpu_us = (
        costs.api_us + costs.bot_turn_us + costs.bot_response_us + costs.deliver_response_us
        + costs.deliver_attempt_us / 2 + 2 * costs.rabbitmq_us + costs.postgres_turn_us * COMMIT_PART
    )  # fmt: skip
    return cpu_us / 1e6 + costs.commit_s + load.bot_s + 2 * costs.confirm_s + costs.post_s
