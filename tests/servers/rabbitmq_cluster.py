"""A RabbitMQ cluster of three nodes on one machine, of the machine's own program."""

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from servers.rabbitmq_program import ProgramNode, find_scripts

NODES = 3


class Cluster:
    """Three nodes that are one broker; a quorum queue has a replica on each."""

    def __init__(self, nodes: list[ProgramNode]) -> None:
        self.nodes = nodes

    def ctl(self, *args: str) -> str:
        """Run rabbitmqctl on the first node that answers."""
        *others, last = [node for node in self.nodes if node.running]
        for node in others:
            try:
                return node.ctl(*args)
            except RuntimeError:
                continue
        return last.ctl(*args)

    def leader(self, queue: str, vhost: str) -> ProgramNode:
        """Return the node that leads a quorum queue."""
        for line in self.ctl("list_queues", "-q", "--vhost", vhost, "name", "leader").splitlines():
            name, _, leader = line.partition("\t")
            if name == queue:
                return next(node for node in self.nodes if node.name == leader.strip())
        raise LookupError(f"the cluster has no queue {queue} in {vhost}")


@contextmanager
def program_cluster() -> Iterator[Cluster]:
    """Run three private nodes as one cluster; the first one's port mapper and cookie serve all."""
    scripts = find_scripts()
    with ExitStack() as stack:
        nodes: list[ProgramNode] = []
        for _ in range(NODES):
            folder = stack.enter_context(
                tempfile.TemporaryDirectory(prefix="postbote-cluster-", ignore_cleanup_errors=True)
            )
            node = ProgramNode(scripts, Path(folder), nodes[0].mapper if nodes else None)
            stack.callback(node.end)
            if nodes:
                node.ctl("stop_app")
                node.ctl("join_cluster", nodes[0].name)
                node.ctl("start_app")
            nodes.append(node)
        yield Cluster(nodes)
