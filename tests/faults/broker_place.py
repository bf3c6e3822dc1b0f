"""Places on a broker: a virtual host of a test's own, and who consumes what in it."""

from secrets import token_hex
from typing import Protocol


class Controlled(Protocol):
    """A node or a cluster that rabbitmqctl reaches."""

    def ctl(self, *args: str) -> str:
        """Run rabbitmqctl, and return what it printed."""
        ...


def add_vhost(broker: Controlled) -> str:
    """Make a virtual host that its user may use; returns its name."""
    name = f"test-{token_hex(4)}"
    broker.ctl("add_vhost", name)
    broker.ctl("set_permissions", "-p", name, "guest", ".*", ".*", ".*")
    return name


def served_by(broker: Controlled, vhost: str) -> dict[str, int]:
    """Tell which queues are served, each by the client whose end of the connection has this port."""
    ports = {}
    for line in broker.ctl("list_connections", "-q", "pid", "peer_port").splitlines():
        pid, _, port = line.partition("\t")
        if port.strip().isdigit():
            ports[pid.strip()] = int(port)
    connections = {}
    for line in broker.ctl("list_channels", "-q", "-p", vhost, "pid", "connection").splitlines():
        pid, _, connection = line.partition("\t")
        connections[pid.strip()] = connection.strip()
    served = {}
    for line in broker.ctl(
        "list_consumers", "-q", "-p", vhost, "queue_name", "channel_pid", "active"
    ).splitlines():
        queue, channel, active = (word.strip() for word in line.split("\t"))
        peer = ports.get(connections.get(channel, ""))
        if active == "true" and peer is not None:
            served[queue] = peer
    return served
