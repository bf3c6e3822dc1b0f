"""A RabbitMQ node for the test run: one that is named, else a container, else the machine's own program.

`POSTBOTE_TEST_AMQP_URL` names one whose `postbote.*` queues may be deleted; `POSTBOTE_TEST_ENGINE=off` keeps
the tests from the Docker engine.
"""

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol

import aio_pika
import pamqp.frame
from pamqp.commands import Connection
from servers.postgres import engine_answers
from yarl import URL

from broker.topology import Topology

IMAGE = "rabbitmq:4-management"
START_S = 90.0
CTL_S = 60.0
MISSING = (
    "These tests need a RabbitMQ node, and there is none: `make test` installs the program on Debian "
    "(else: apt-get install rabbitmq-server). Or start a Docker engine, or set POSTBOTE_TEST_AMQP_URL to a "
    "node whose postbote.* queues may be deleted."
)
CONFIG = """\
loopback_users = none
listeners.tcp.1 = 127.0.0.1:{port}
disk_free_limit.absolute = 50MB
log.file.level = warning
log.console = false
"""


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


class ProgramNode:
    """A private node of the machine's own RabbitMQ: its own name, ports, data, cookie and port mapper.

    With a `mapper`, the port of one that runs and a cookie, it can be made a member of that one's cluster.
    """

    def __init__(self, scripts: Path, folder: Path, mapper: tuple[int, str] | None = None) -> None:
        self._scripts = scripts
        self._folder = folder
        mapper_port, shared = mapper or (free_port(), secrets.token_hex(10).upper())
        self.name = f"postbote-{secrets.token_hex(4)}@localhost"
        #: What another node needs to join it.
        self.mapper = (mapper_port, shared)
        self._server: subprocess.Popen[bytes] | None = None
        self._mapper: subprocess.Popen[bytes] | None = None
        port = free_port()
        self.url = f"amqp://guest:guest@127.0.0.1:{port}/"
        (folder / "rabbitmq.conf").write_text(CONFIG.format(port=port))
        (folder / "plugins").write_text("[].\n")
        (folder / "environment.conf").touch()
        cookie = folder / ".erlang.cookie"
        cookie.write_text(shared)
        cookie.chmod(0o400)
        self._environment = {
            "PATH": os.environ.get("PATH", os.defpath),
            "LANG": "C.UTF-8",
            "HOME": str(folder),
            "ERL_EPMD_PORT": str(mapper_port),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODENAME": self.name,
            "RABBITMQ_DIST_PORT": str(free_port()),
            "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq.conf"),
            "RABBITMQ_CONF_ENV_FILE": str(folder / "environment.conf"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "plugins"),
            "RABBITMQ_MNESIA_BASE": str(folder / "data"),
            "RABBITMQ_LOG_BASE": str(folder / "log"),
            "RABBITMQ_GENERATED_CONFIG_DIR": str(folder / "generated"),
            "RABBITMQ_PID_FILE": str(folder / "pid"),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1}",
            # The start script then becomes the server, so that our child is the server itself.
            "detached": "true",
        }
        if mapper is None:
            self._mapper = subprocess.Popen(
                [*_dies_with_us(), _mapper_program(), "-port", str(mapper_port), "-address", "127.0.0.1"],
                env=self._environment,
                stdin=subprocess.DEVNULL,
            )
        try:
            self.start()
        except BaseException:
            self.end()
            raise
        self.version = greeting(self.url)

    def ctl(self, *args: str) -> str:
        """Run rabbitmqctl on the node; takes about a second."""
        run = subprocess.run(
            [str(self._scripts / "rabbitmqctl"), *args],
            env=self._environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=CTL_S,
        )
        if run.returncode:
            raise RuntimeError(f"rabbitmqctl {' '.join(args)} failed: {run.stdout}{run.stderr}")
        return run.stdout

    def stop(self) -> None:
        """Stop the server by SIGTERM, on which it closes its queues in order."""
        self._end_server(signal.SIGTERM)

    def start(self) -> None:
        """Start the server, and wait until it takes connections."""
        output = self._folder / "output"
        with output.open("ab") as sink:
            server = self._server = subprocess.Popen(
                [*_dies_with_us(), str(self._scripts / "rabbitmq-server")],
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=subprocess.STDOUT,
            )

        def still_running() -> None:
            if server.poll() is not None:
                raise RuntimeError(f"RabbitMQ did not start: {output.read_text(errors='replace')[-2000:]}")

        await_greeting(self.url, still_running)

    def kill(self) -> None:
        """End the server by SIGKILL."""
        self._end_server(signal.SIGKILL)

    @property
    def running(self) -> bool:
        """True from `start` until `stop` or `kill`."""
        return self._server is not None

    @property
    def pid(self) -> int:
        """The server's process; raises RuntimeError where it does not run."""
        if self._server is None:
            raise RuntimeError("RabbitMQ does not run")
        return self._server.pid

    def pause(self) -> None:
        """Stop the server's process where it stands, and wait until all its threads do."""
        if self._server is not None:
            self._server.send_signal(signal.SIGSTOP)
            os.waitpid(self._server.pid, os.WUNTRACED)

    def resume(self) -> None:
        """Continue the server's process."""
        if self._server is not None:
            self._server.send_signal(signal.SIGCONT)

    def end(self) -> None:
        """End the server and its port mapper; nothing in there is wanted any more."""
        self._end_server(signal.SIGKILL)
        if self._mapper is not None:
            self._mapper.kill()
            self._mapper.wait()

    def _end_server(self, number: signal.Signals) -> None:
        server, self._server = self._server, None
        if server is not None:
            server.send_signal(number)
            try:
                server.wait(timeout=30)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()


@contextmanager
def program_node() -> Iterator[ProgramNode]:
    """Run a private node of the RabbitMQ that is installed on this machine."""
    scripts = find_scripts()
    with tempfile.TemporaryDirectory(prefix="postbote-rabbitmq-", ignore_cleanup_errors=True) as folder:
        node = ProgramNode(scripts, Path(folder))
        try:
            yield node
        finally:
            node.end()


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


async def clean(url: str) -> None:
    """Delete every exchange and queue that Postbote declares, with up to 32 partitions."""
    topology = Topology(partitions=32)
    connection = await aio_pika.connect(url, timeout=10)
    async with connection, connection.channel() as channel:
        for queue in topology.queues:
            await channel.queue_delete(queue.name)
        for exchange in topology.exchanges:
            await channel.exchange_delete(exchange.name)


def free_port() -> int:
    """Find a port of the loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def find_scripts() -> Path:
    """Find the folder of RabbitMQ's programs; raises RuntimeError where it is not installed."""
    # Not the wrapper on the PATH: as root it would become the user of the system's own node.
    for path in ("/usr/lib/rabbitmq/bin", "/usr/local/lib/rabbitmq/bin", "/opt/rabbitmq/sbin"):
        if (Path(path) / "rabbitmq-server").exists():
            return Path(path)
    on_path = shutil.which("rabbitmq-server")
    if on_path is None:
        raise RuntimeError(MISSING)
    return Path(on_path).resolve().parent


def _mapper_program() -> str:
    found = shutil.which("epmd") or next(Path("/usr/lib/erlang").glob("erts-*/bin/epmd"), None)
    if found is None:
        raise RuntimeError("RabbitMQ is installed, but Erlang's `epmd` is not: install erlang-base.")
    return str(found)


def _dies_with_us() -> list[str]:
    # A test run that is killed cannot stop its servers: the kernel does.
    setpriv = shutil.which("setpriv")
    return [setpriv, "--pdeathsig", "KILL"] if setpriv and sys.platform == "linux" else []
