"""A cluster of three RabbitMQ nodes loses the leader of its queues, twice, under load."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from broker_place import add_vhost
from proxy import Proxy, proxied
from receivers import Receiver, opened
from servers.rabbitmq_cluster import Cluster, program_cluster
from stage import Stage, by_hand, staged

QUEUE = "postbote.outbound.p00"


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """Provide a cluster of three nodes."""
    with program_cluster() as started:
        yield started


@pytest.fixture
async def cluster_stage(
    cluster: Cluster, fault_database: str, tmp_path: Path
) -> AsyncIterator[tuple[Stage, Proxy, str]]:
    """Set a stage behind a proxy that balances over the nodes; with it, and the name of the virtual host."""
    vhost = add_vhost(cluster)
    first, *others = (node.url for node in cluster.nodes)
    async with (
        proxied(first, *others) as balancer,
        staged(balancer.url(first + vhost), fault_database, tmp_path) as stage,
    ):
        yield stage, balancer, vhost


@pytest.mark.long
@pytest.mark.timeout(400)
async def test_killing_the_leader_of_a_queue_twice_loses_nothing(
    cluster: Cluster, cluster_stage: tuple[Stage, Proxy, str]
) -> None:
    stage, _, vhost = cluster_stage
    one, two = Receiver("one"), Receiver("two")
    async with opened(one, two):
        await stage.start_all("api", "api", "bot", "bot", "deliver", "deliver")
        await stage.channel(one, two)
        # Three nodes that write everything three times, on the machine that runs all the rest.
        load = stage.load(rate=60.0)
        killed = []
        async with load.flowing():
            for _ in range(2):
                await stage.arrivals(load, 50)
                leader = await by_hand(lambda: cluster.leader(QUEUE, vhost))
                with stage.strike("leader killed"):
                    leader.kill()
                killed.append(leader.name)
                # Served by the two that are left, before the third is back.
                await stage.arrivals(load, 100)
                await by_hand(leader.start)
                await stage.arrivals(load, 50)
        await stage.judge(
            "three-node RabbitMQ: the leader of a queue killed, twice",
            load,
            most_repeated=stage.most_in_flight(8),
            notes={"different leaders killed": len(set(killed))},
        )
