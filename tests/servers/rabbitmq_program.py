"""A private node of the RabbitMQ that is installed on this machine: its own name, ports, data and port mapper."""

import os
import secrets
import shutil
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from servers.process import ServerProcess, dying_with_us, free_port, output_of
from servers.rabbitmq_node import await_greeting, greeting

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
        self._server = ServerProcess("RabbitMQ", folder / "output")
        self._mapper = ServerProcess("RabbitMQ's port mapper", folder / "mapper-output")
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
            listening = ("-port", str(mapper_port), "-address", "127.0.0.1")
            self._mapper.start([*dying_with_us(), _mapper_program(), *listening], folder, self._environment)
        try:
            self.start()
        except BaseException:
            self.end()
            raise
        self.version = greeting(self.url)

    def ctl(self, *args: str) -> str:
        """Run rabbitmqctl on the node; takes about a second."""
        return output_of([str(self._scripts / "rabbitmqctl"), *args], self._folder, CTL_S, self._environment)

    def stop(self) -> None:
        """Stop the server by SIGTERM, on which it closes its queues in order."""
        self._server.end(signal.SIGTERM)

    def start(self) -> None:
        """Start the server, and wait until it takes connections."""
        command = [*dying_with_us(), str(self._scripts / "rabbitmq-server")]
        self._server.start(command, self._folder, self._environment)
        await_greeting(self.url, self._server.look)

    def kill(self) -> None:
        """End the server by SIGKILL."""
        self._server.end(signal.SIGKILL)

    @property
    def running(self) -> bool:
        """True from `start` until `stop` or `kill`."""
        return self._server.running

    @property
    def pid(self) -> int:
        """The server's process; raises RuntimeError where it does not run."""
        return self._server.pid

    def pause(self) -> None:
        """Stop the server's process where it stands, and wait until all its threads do."""
        if self._server.running:
            self._server.send(signal.SIGSTOP)
            os.waitpid(self._server.pid, os.WUNTRACED)

    def resume(self) -> None:
        """Continue the server's process."""
        self._server.send(signal.SIGCONT)

    def end(self) -> None:
        """End the server and its port mapper; nothing in there is wanted any more."""
        self._server.end(signal.SIGKILL)
        self._mapper.end(signal.SIGKILL)


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
