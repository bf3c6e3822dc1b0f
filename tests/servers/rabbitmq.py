"""A RabbitMQ node for the test run: one that is named, else a container, else the machine's own program.

`POSTBOTE_TEST_AMQP_URL` names one whose `postbote.*` queues may be deleted; `POSTBOTE_TEST_ENGINE=off` keeps
the tests from the Docker engine.
"""

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import aio_pika
from servers.postgres import engine_answers
from servers.process import free_port
from servers.rabbitmq_node import Node, await_greeting, greeting
from servers.rabbitmq_program import find_scripts, program_node

from broker.topology import Topology

IMAGE = "rabbitmq:4-management"


def kinds_here() -> list[str]:
    """List what contract tests run on: RabbitMQ 4 in a container, and the one that is named or installed.

    RabbitMQ 3.10 (Debian's program) and 4 (the container) differ where it matters to us: both, if possible.
    """
    kinds = ["rabbitmq4"] if engine_answers() else []
    if not kinds or os.environ.get("POSTBOTE_TEST_AMQP_URL"):
        return [*kinds, "rabbitmq"]
    try:
        find_scripts()
    except RuntimeError:
        return kinds
    return [*kinds, "rabbitmq"]


@contextmanager
def installed_node() -> Iterator[Node]:
    """Provide the node of kind `rabbitmq`: the one that is named, else the machine's own program."""
    named = os.environ.get("POSTBOTE_TEST_AMQP_URL")
    if named:
        yield NamedNode(named)
    else:
        with program_node() as node:
            yield node


@contextmanager
def rabbitmq_node() -> Iterator[Node]:
    """Provide a node; raises RuntimeError where there is none."""
    with ExitStack() as stack:
        node: Node | None = None
        if not os.environ.get("POSTBOTE_TEST_AMQP_URL") and engine_answers():
            # An engine without the image, and without a way to fetch it, is as good as none.
            with suppress(Exception):
                node = stack.enter_context(container_node())
        yield node or stack.enter_context(installed_node())


class NamedNode:
    """Somebody else's node, which the tests use and leave running."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.version = greeting(url)

    def ctl(self, *args: str) -> str:
        """Refuse: nothing is known of the machine that it runs on."""
        raise NotImplementedError("POSTBOTE_TEST_AMQP_URL names a node that the tests do not control")

    def stop(self) -> None:
        """Refuse, as `ctl` does."""
        self.ctl()

    def start(self) -> None:
        """Refuse, as `ctl` does."""
        self.ctl()

    def kill(self) -> None:
        """Refuse, as `ctl` does."""
        self.ctl()

    def pause(self) -> None:
        """Refuse, as `ctl` does."""
        self.ctl()

    def resume(self) -> None:
        """Refuse, as `ctl` does."""
        self.ctl()


class ContainerNode:
    """A node in a container of its own."""

    def __init__(self, container: Any, url: str) -> None:
        self._container = container
        self.url = url
        self.version = await_greeting(url, lambda: container.get_wrapped_container().reload())

    def ctl(self, *args: str) -> str:
        """Run rabbitmqctl in the container."""
        code, output = self._container.exec(["rabbitmqctl", *args])
        text: str = output.decode(errors="replace")
        if code:
            raise RuntimeError(f"rabbitmqctl {' '.join(args)} failed: {text}")
        return text

    def stop(self) -> None:
        """Stop the container, which has 30 s to end."""
        self._container.get_wrapped_container().stop(timeout=30)

    def start(self) -> None:
        """Start the container again, on the port that it had."""
        self._container.get_wrapped_container().start()
        await_greeting(self.url)

    def kill(self) -> None:
        """End the container by SIGKILL."""
        self._container.get_wrapped_container().kill()

    def pause(self) -> None:
        """Freeze the container."""
        self._container.get_wrapped_container().pause()

    def resume(self) -> None:
        """Thaw the container."""
        self._container.get_wrapped_container().unpause()


@contextmanager
def container_node() -> Iterator[ContainerNode]:
    """Run a node of RabbitMQ 4 by testcontainers; raises RuntimeError where the engine cannot."""
    from testcontainers.core.config import testcontainers_config
    from testcontainers.core.container import DockerContainer

    # Its reaper would be one more image to fetch; we stop the container ourselves.
    testcontainers_config.ryuk_disabled = True
    port = free_port()
    with DockerContainer(IMAGE).with_bind_ports(5672, port) as container:
        yield ContainerNode(container, f"amqp://guest:guest@{container.get_container_host_ip()}:{port}/")


async def clean(url: str) -> None:
    """Delete every exchange and queue that Postbote declares, with up to 32 partitions."""
    topology = Topology(partitions=32)
    connection = await aio_pika.connect(url, timeout=10)
    async with connection, connection.channel() as channel:
        for queue in topology.queues:
            await channel.queue_delete(queue.name)
        for exchange in topology.exchanges:
            await channel.exchange_delete(exchange.name)
