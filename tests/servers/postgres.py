"""A PostgreSQL server for the test run: one that is named, else a container, else the machine's own programs.

`POSTBOTE_TEST_DATABASE_URL` names one whose user may create databases; `POSTBOTE_TEST_ENGINE=off` keeps the
tests from the Docker engine.
"""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from pathlib import Path
from uuid import uuid4

import asyncpg
from sqlalchemy.engine import make_url

IMAGE = "postgres:17"
#: Durability is of no use to a database that ends with the tests, and slow.
FAST = ("fsync=off", "synchronous_commit=off", "full_page_writes=off", "max_connections=200")
START_S = 60.0
MISSING = (
    "These tests need a PostgreSQL server, and there is none: `make test` installs the programs on Debian "
    "(else: apt-get install postgresql). Or start a Docker engine, or set POSTBOTE_TEST_DATABASE_URL to a "
    "server whose user may create databases."
)


@contextmanager
def postgres_server() -> Iterator[str]:
    """Provide a server, as the URL of a user who may create databases.

    Raises RuntimeError, which says what to install, where there is none.
    """
    named = os.environ.get("POSTBOTE_TEST_DATABASE_URL")
    if named:
        yield named
        return
    with ExitStack() as stack:
        url = None
        if engine_answers():
            try:
                url = stack.enter_context(_container())
            except Exception as error:
                sys.stderr.write(f"No {IMAGE} as a container ({error}); trying this machine's programs.\n")
        if url is None:
            url = stack.enter_context(_programs())
        yield url


def engine_answers() -> bool:
    """Tell whether a Docker engine may be used and answers within 2 s."""
    if os.environ.get("POSTBOTE_TEST_ENGINE") == "off":
        return False
    if not os.environ.get("DOCKER_HOST") and not Path("/var/run/docker.sock").exists():
        return False
    import docker

    try:
        client = docker.from_env(timeout=2)
    except docker.errors.DockerException:
        return False
    try:
        return bool(client.ping())
    except Exception:
        return False
    finally:
        client.close()


@asynccontextmanager
async def fresh_database(server: str, template: str | None = None) -> AsyncIterator[str]:
    """Make a database, a copy of `template` where one is given, and drop it at the end; gives its URL."""
    name = f"postbote_{uuid4().hex[:12]}"
    admin = await asyncpg.connect(server, timeout=10)
    try:
        copied = f"CREATE DATABASE {name} TEMPLATE {template or 'template1'}"
        if admin.get_server_version() >= (15,):
            # Four times as fast as the way that is usual since version 15.
            copied += " STRATEGY file_copy"
        await admin.execute(copied, timeout=60)
        try:
            yield database_url(server, name)
        finally:
            await admin.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)", timeout=60)
    finally:
        await admin.close(timeout=10)


def database_url(server: str, name: str) -> str:
    """Return the URL of another database of the same server."""
    return make_url(server).set(database=name).render_as_string(hide_password=False)


@contextmanager
def _container() -> Iterator[str]:
    from testcontainers.community.postgres import PostgresContainer

    command = "postgres " + " ".join(f"-c {setting}" for setting in FAST)
    with PostgresContainer(IMAGE, driver=None).with_command(command) as container:
        yield container.get_connection_url()


@contextmanager
def _programs() -> Iterator[str]:
    programs = _find_programs()
    with tempfile.TemporaryDirectory(
        prefix="postbote-postgres-", dir=_quick_folder(), ignore_cleanup_errors=True
    ) as folder:
        data = Path(folder) / "data"
        data.mkdir()
        # The server refuses to run as root.
        owner = _unprivileged() if os.geteuid() == 0 else None
        if owner:
            shutil.chown(folder, owner)
            shutil.chown(data, owner)
        initdb = [str(programs / "initdb"), "-D", str(data), "-U", "postbote", "-A", "trust", "-E", "UTF8"]
        made = subprocess.run(
            [*_as(owner), *initdb, "--no-locale", "--no-sync"],
            capture_output=True,
            text=True,
            cwd=folder,
            timeout=START_S,
        )
        if made.returncode:
            raise RuntimeError(f"initdb failed: {made.stderr.strip()}")
        with _running(programs, Path(folder), data, owner) as url:
            yield url


@contextmanager
def _running(programs: Path, folder: Path, data: Path, owner: str | None) -> Iterator[str]:
    port = _free_port()
    settings = (*FAST, f"port={port}", "listen_addresses=127.0.0.1", f"unix_socket_directories={folder}")
    arguments = [part for setting in settings for part in ("-c", setting)]
    log = folder / "log"
    with log.open("wb") as output:
        server = subprocess.Popen(
            [*_as(owner, dies_with_us=True), str(programs / "postgres"), "-D", str(data), *arguments],
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=folder,
        )
    try:
        _await_ready(server, programs, port, log)
        yield f"postgresql://postbote@127.0.0.1:{port}/postgres"
    finally:
        # Immediate shutdown: nothing in there is wanted any more.
        server.send_signal(signal.SIGQUIT)
        server.wait(timeout=30)


def _await_ready(server: "subprocess.Popen[bytes]", programs: Path, port: int, log: Path) -> None:
    ready = [str(programs / "pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(port), "-U", "postbote"]
    deadline = time.monotonic() + START_S
    while subprocess.run(ready, timeout=10).returncode:
        if server.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(
                f"The PostgreSQL server did not start: {log.read_text(errors='replace')[-2000:]}"
            )
        time.sleep(0.05)


def _quick_folder() -> str | None:
    # In memory, where there is room, copying a database is several times as fast.
    memory = Path("/dev/shm")
    if memory.is_dir() and os.access(memory, os.W_OK) and shutil.disk_usage(memory).free > 4 * 2**30:
        return str(memory)
    return None


def _find_programs() -> Path:
    # Debian keeps each version's programs apart, and puts none of the server's on the PATH. Newest first.
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: _version(path), reverse=True)
    on_path = shutil.which("initdb")
    for folder in (*folders, *([Path(on_path).parent] if on_path else [])):
        if (folder / "initdb").exists() and (folder / "postgres").exists():
            return folder
    raise RuntimeError(MISSING)


def _version(programs: Path) -> int:
    return int(programs.parent.name) if programs.parent.name.isdigit() else 0


def _unprivileged() -> str:
    import pwd

    for name in ("postgres", "nobody"):
        with suppress(KeyError):
            return pwd.getpwnam(name).pw_name
    raise RuntimeError(
        "PostgreSQL refuses to run as root, and there is neither a user `postgres` nor `nobody`."
    )


def _as(owner: str | None, *, dies_with_us: bool = False) -> list[str]:
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        if owner:
            raise RuntimeError(
                "PostgreSQL refuses to run as root, and there is no `setpriv` to change the user."
            )
        return []
    identity = [
        f"--reuid={owner}",
        f"--regid={owner}" if owner != "nobody" else "--regid=nogroup",
        "--clear-groups",
    ]
    # A test run that is killed cannot stop its server: the kernel does.
    fate = ["--pdeathsig", "QUIT"] if dies_with_us and sys.platform == "linux" else []
    return [setpriv, *(identity if owner else []), *fate] if owner or fate else []


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
