"""The peers, what each needs, and how its worker is started."""

import os
import signal
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
#: Where the virtual environments go; git ignores it.
ROOT = FOLDER.parents[1] / "build" / "bench" / "peers"
STAMP = "installed.txt"


@dataclass(frozen=True)
class Peer:
    """One way from a RabbitMQ queue to a webhook."""

    name: str
    #: The module in this folder, which fills the peer's queue and holds what its worker runs.
    module: str
    #: Pinned: what stands between the queue and the webhook, so that a later run measures the same.
    requirements: tuple[str, ...]
    #: The worker's command, where {python}, {bin} and {file} are filled in; it runs in this folder.
    worker: tuple[str, ...]
    #: How many processes move messages; one that only watches them is not counted.
    processes: int
    #: What a peer takes from the environment alone.
    environment: tuple[tuple[str, str], ...] = ()

    @property
    def file(self) -> Path:
        """The peer's script."""
        return FOLDER / f"{self.module}.py"


AIO_PIKA = ("aio-pika==10.2.1", "aiormq==7.2.4", "pamqp==4.0.1")
AIOHTTP = ("aiohttp==3.14.5", "uvloop==0.23.0")
REQUESTS = ("requests==2.34.2", "urllib3==2.8.0")

PEERS = (
    Peer(
        name="bare",
        module="bare_peer",
        requirements=(*AIO_PIKA, *AIOHTTP),
        worker=("{python}", "{file}", "work"),
        processes=1,
    ),
    Peer(
        name="faststream",
        module="faststream_peer",
        # Its command takes uvloop where it is installed.
        requirements=("faststream[rabbit,cli]==0.7.8", "pydantic==2.14.3", *AIO_PIKA, *AIOHTTP),
        worker=("{bin}/faststream", "run", "faststream_peer:app", "--workers", "1"),
        processes=1,
    ),
    Peer(
        name="taskiq",
        module="taskiq_peer",
        requirements=(
            "taskiq==0.13.0",
            "taskiq-aio-pika==0.6.1",
            "pydantic==2.14.3",
            *AIO_PIKA,
            *AIOHTTP,
        ),
        # Its worker takes uvloop where it is installed, and logs every task at the level INFO. As many tasks
        # at once as the bare loop has POSTs; what RabbitMQ sends ahead waits in aio-pika.
        worker=(
            "{bin}/taskiq",
            "worker",
            "taskiq_peer:broker",
            "--workers",
            "1",
            "--max-async-tasks",
            "64",
            "--log-level",
            "WARNING",
        ),
        processes=1,
    ),
    Peer(
        name="dramatiq",
        module="dramatiq_peer",
        requirements=("dramatiq[rabbitmq]==2.2.1", "pika==1.4.4", *REQUESTS),
        # 8 threads a process is its default. It logs no message at its usual level.
        worker=("{bin}/dramatiq", "dramatiq_peer", "--processes", "2", "--threads", "8"),
        processes=2,
        # 200 in all, as with the other peers; its default is twice the threads.
        environment=(("dramatiq_queue_prefetch", "100"),),
    ),
    Peer(
        name="celery",
        module="celery_peer",
        requirements=("celery==5.7.0", "kombu==5.7.0", "amqp==5.4.2", "billiard==4.3.2", *REQUESTS),
        # Without what workers tell each other: there is only one.
        worker=(
            "{bin}/celery",
            "--app",
            "celery_peer",
            "worker",
            "--pool",
            "prefork",
            "--concurrency",
            "2",
            "--loglevel",
            "WARNING",
            "--without-gossip",
            "--without-mingle",
            "--without-heartbeat",
        ),
        processes=2,
    ),
)


#: The whole way as one would write it, with the libraries of the peer FastStream; see pipeline_peer.
PIPELINE = Peer(
    name="pipeline",
    module="pipeline_peer",
    requirements=("faststream[rabbit,cli]==0.7.8", "pydantic==2.14.3", *AIO_PIKA, *AIOHTTP),
    worker=(),
    processes=3,
)


def install(peer: Peer, root: Path = ROOT) -> Path:
    """Make the peer's virtual environment where it is not there yet, and return its Python."""
    folder = root / peer.name
    python = folder / "bin" / "python"
    stamp = folder / STAMP
    wanted = "\n".join((sys.version.split()[0], *peer.requirements)) + "\n"
    if stamp.exists() and python.exists() and stamp.read_text() == wanted:
        return python
    folder.mkdir(parents=True, exist_ok=True)
    run = [sys.executable, "-m", "venv", "--clear", str(folder)]
    subprocess.run(run, check=True, env=environment())
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, *peer.requirements], check=True, env=environment())
    # Last, so that an installation that broke off is made again.
    stamp.write_text(wanted)
    return python


def fill(peer: Peer, python: Path, amqp_url: str, webhook_url: str, count: int) -> None:
    """Put messages onto the peer's queue, and return when they are there."""
    run = [str(python), str(peer.file), "fill", amqp_url, webhook_url, str(count)]
    subprocess.run(run, check=True, cwd=FOLDER, env=environment(), stdin=subprocess.DEVNULL)


def start_worker(peer: Peer, python: Path, amqp_url: str, webhook_url: str) -> subprocess.Popen[bytes]:
    """Start the peer's worker in a process group of its own."""
    places = {"python": str(python), "bin": str(python.parent), "file": str(peer.file)}
    wanted = {
        **environment(),
        **dict(peer.environment),
        "BENCH_AMQP_URL": amqp_url,
        "BENCH_WEBHOOK_URL": webhook_url,
    }
    return subprocess.Popen(
        [part.format(**places) for part in peer.worker],
        cwd=FOLDER,
        env=wanted,
        stdin=subprocess.DEVNULL,
        start_new_session=True,
    )


def stop_worker(worker: subprocess.Popen[bytes], patience: float = 20) -> None:
    """End the worker and all its processes, in order if it does so in time."""
    # The main process alone: each of them ends its children in order, which a signal to all would cut short.
    worker.terminate()
    with suppress(subprocess.TimeoutExpired):
        worker.wait(patience)
    with suppress(ProcessLookupError):
        os.killpg(worker.pid, signal.SIGKILL)
    worker.wait()


def environment() -> dict[str, str]:
    """Make the environment of a peer's processes."""
    # Nothing of ours in a peer's way, and nothing of a peer's in ours.
    return {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_"))}
