"""The cluster of compose.yaml: three RabbitMQ nodes, of which each is lost under load."""

import asyncio
import time
from collections.abc import Iterator

import pytest
from processes import Api, Receiver, until
from project import ARRIVAL_S, USERS, Deployment, deployed, docker, say
from servers.postgres import engine_answers

pytestmark = [
    pytest.mark.compose,
    pytest.mark.long,
    pytest.mark.timeout(900),
    pytest.mark.skipif(not engine_answers(), reason="no Docker engine answers"),
]
NODES = ("rabbitmq", "rabbitmq-2", "rabbitmq-3")


@pytest.fixture
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """Bring three nodes up."""
    with deployed(tmp_path_factory.mktemp("cluster"), "cluster") as project:
        yield project


@pytest.fixture
def deployment(cluster: Deployment) -> Deployment:
    """Name the deployment that api and receiver belong to."""
    return cluster


async def test_each_of_three_nodes_is_lost_under_load(
    cluster: Deployment, api: Api, receiver: Receiver, pytestconfig: pytest.Config
) -> None:
    members = await asyncio.to_thread(
        cluster.run, "exec", "-T", "rabbitmq", "rabbitmq-queues", "quorum_status", "postbote.inbound.p00"
    )
    assert all(f"rabbit@{node} " in members.replace("\u2502", " ").replace("|", " ") for node in NODES), (
        members
    )
    channel, token = await api.channel()
    await api.webhook(channel, receiver, "/hook")
    said = 0
    stop = asyncio.Event()

    async def speak(user: str) -> int:
        number = 0
        while not stop.is_set():
            await say(api, channel, token, user, number)
            number += 1
        return number

    speaking = [asyncio.create_task(speak(user)) for user in USERS]
    report = pytestconfig.get_terminal_writer()
    for node in NODES:
        before = receiver.distinct("/hook")
        await until(receiver.beyond("/hook", before + 200), ARRIVAL_S, "it runs")
        (container,) = cluster.containers(node)
        await asyncio.to_thread(docker, "kill", container)
        before, killed = receiver.distinct("/hook"), time.monotonic()
        # Beyond what was on its way already.
        await until(receiver.beyond("/hook", before + 200), ARRIVAL_S, "it goes on")
        report.line(f"\n{node} killed: 200 more had arrived {time.monotonic() - killed:.1f} s later")
        await asyncio.to_thread(cluster.run, "up", "-d", "--no-build", "--no-recreate", "--wait", node)
    stop.set()
    spoken = dict(zip(USERS, await asyncio.gather(*speaking), strict=True))
    said = sum(spoken.values())
    await until(lambda: receiver.distinct("/hook") == said, ARRIVAL_S, "all have come")
    for user, number in spoken.items():
        assert receiver.first_arrivals("/hook", user) == list(range(1, number + 1)), user
    assert receiver.unsigned == 0
    report.line(f"{said} messages: lost 0, out of order 0, repeated {receiver.repeats('/hook')}")
