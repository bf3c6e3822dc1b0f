"""Every adapter of the broker port, each on a place of its own where nothing is queued yet."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from servers.rabbitmq import NamedNode, clean, container_node, installed_node, kinds_here
from servers.rabbitmq_node import Node
from servers.rabbitmq_program import program_node

from broker.embedded.broker import EmbeddedBroker
from broker.port import Broker
from broker.rabbitmq.broker import RabbitBroker
from broker.room import IN_HAND_BYTES
from broker.topology import Topology


class MakeBroker:
    """Makes brokers on one place, so that a second one finds what the first one left."""

    def __init__(self, place: str | Path, publish_timeout_s: float = 5.0) -> None:
        self._place = place
        self._publish_timeout_s = publish_timeout_s
        self._made: list[Broker] = []

    async def __call__(
        self, partitions: int = 4, *, in_hand_bytes: int = IN_HAND_BYTES, spool_folder: Path | None = None
    ) -> Broker:
        """Make and start a broker."""
        topology = Topology(partitions)
        made: Broker
        if isinstance(self._place, Path):
            made = EmbeddedBroker(self._place, topology, in_hand_bytes=in_hand_bytes)
        else:
            made = RabbitBroker(
                self._place,
                topology,
                self._publish_timeout_s,
                in_hand_bytes=in_hand_bytes,
                spool_folder=spool_folder,
            )
        await made.start()
        self._made.append(made)
        return made

    async def close(self) -> None:
        """Close them all."""
        for made in self._made:
            await made.close()


@pytest.fixture(scope="session", name="installed_node")
def provide_installed_node() -> Iterator[Node]:
    """Provide the node that is named, else one of the machine's own program."""
    with installed_node() as node:
        yield node


@pytest.fixture(scope="session")
def container_of_4() -> Iterator[Node]:
    """Provide a node of RabbitMQ 4 in a container."""
    with container_node() as node:
        yield node


@pytest.fixture(params=["embedded", *kinds_here()])
async def make_broker(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[MakeBroker]:
    """Provide what makes brokers, on each adapter in turn."""
    place: str | Path = tmp_path / "queues.db"
    if request.param != "embedded":
        node: Node = request.getfixturevalue(
            "container_of_4" if request.param == "rabbitmq4" else "installed_node"
        )
        await clean(node.url)
        place = node.url
    maker = MakeBroker(place)
    yield maker
    await maker.close()


@pytest.fixture(params=kinds_here())
async def node(request: pytest.FixtureRequest) -> Node:
    """Provide each RabbitMQ in turn, with nothing of Postbote on it, for tests that do something to it."""
    node: Node = request.getfixturevalue(
        "container_of_4" if request.param == "rabbitmq4" else "installed_node"
    )
    if isinstance(node, NamedNode):
        pytest.skip("POSTBOTE_TEST_AMQP_URL names a node that the tests do not control")
    await clean(node.url)
    return node


@pytest.fixture
def fresh_node() -> Iterator[Node]:
    """Provide a RabbitMQ that has never held a queue.

    A queue that was deleted and made again under its name may not come back from a SIGKILL soon after: the
    node then looks for its log in the folder of the deleted one. So a node that is to be killed is a new one.
    """
    with container_node() if "rabbitmq" not in kinds_here() else program_node() as node:
        yield node


@pytest.fixture
async def make_rabbit(node: Node) -> AsyncIterator[MakeBroker]:
    """Provide what makes brokers on a RabbitMQ, quick to give up on a confirm."""
    maker = MakeBroker(node.url, publish_timeout_s=1.0)
    yield maker
    await maker.close()


@pytest.fixture
async def broker(make_broker: MakeBroker) -> Broker:
    """Provide a started broker, on each adapter in turn."""
    return await make_broker()
