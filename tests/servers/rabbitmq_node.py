"""A RabbitMQ node as the tests see it, and how they know that it runs."""

import socket
import time
from contextlib import suppress
from typing import Any, Protocol

import pamqp.frame
from pamqp.commands import Connection
from yarl import URL

START_S = 90.0


class Node(Protocol):
    """One RabbitMQ node, and what a fault test may do to it."""

    url: str
    version: str

    def ctl(self, *args: str) -> str:
        """Run rabbitmqctl on it, and return what it printed."""
        ...

    def stop(self) -> None:
        """Stop it in an orderly way; what is durable is there again after `start`."""
        ...

    def start(self) -> None:
        """Start it again under the same address, and wait until it takes connections."""
        ...

    def kill(self) -> None:
        """End it without any warning."""
        ...

    def pause(self) -> None:
        """Make it stand still with its connections open, as a machine that swaps or a cut network does."""
        ...

    def resume(self) -> None:
        """Let it go on after `pause`."""
        ...


def await_greeting(url: str, look: Any = lambda: None) -> str:
    """Wait until a node takes connections, and return its version; `look` may raise to give up earlier."""
    deadline = time.monotonic() + START_S
    while True:
        try:
            return greeting(url)
        except (OSError, EOFError) as error:
            look()
            if time.monotonic() > deadline:
                raise RuntimeError(f"RabbitMQ took no connection within {START_S:g} s") from error
            time.sleep(0.1)


def greeting(url: str) -> str:
    """Connect, and return the version in the first frame that the node sends."""
    address = URL(url)
    place = (address.host or "127.0.0.1", address.port or 5672)
    with socket.create_connection(place, timeout=5) as connection:
        connection.sendall(b"AMQP\x00\x00\x09\x01")
        received = b""
        while True:
            data = connection.recv(65536)
            if not data:
                raise EOFError("closed at once")
            received += data
            with suppress(Exception):
                _, _, frame = pamqp.frame.unmarshal(received)
                if isinstance(frame, Connection.Start) and frame.server_properties:
                    return str(frame.server_properties["version"])
