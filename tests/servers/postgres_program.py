"""A private PostgreSQL server of the machine's own programs, and what a fault test may do to it."""

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from servers.process import ServerProcess, dying_with_us, free_port, output_of

START_S = 60.0
MISSING = (
    "These tests need a PostgreSQL server, and there is none: `make test` installs the programs on Debian "
    "(else: apt-get install postgresql). Or start a Docker engine, or set POSTBOTE_TEST_DATABASE_URL to a "
    "server whose user may create databases."
)
#: What was committed is there again after a crash of the server, though not after one of the machine.
SURVIVES_A_CRASH = ("fsync=off", "full_page_writes=off", "max_connections=200")


class PostgresProgram:
    """A private server: its own port, data and settings. Starts at once; raises RuntimeError where it cannot."""

    def __init__(self, programs: Path, folder: Path, settings: Sequence[str]) -> None:
        self._programs = programs
        self._folder = folder
        self._data = folder / "data"
        self._data.mkdir()
        # The server refuses to run as root.
        self._owner = unprivileged() if os.geteuid() == 0 else None
        if self._owner:
            shutil.chown(folder, self._owner)
            shutil.chown(self._data, self._owner)
        self._port = free_port()
        places = (f"port={self._port}", "listen_addresses=127.0.0.1", f"unix_socket_directories={folder}")
        self._settings = [part for setting in (*settings, *places) for part in ("-c", setting)]
        self._server = ServerProcess("The PostgreSQL server", folder / "log")
        #: The address of a user who may create databases.
        self.url = f"postgresql://postbote@127.0.0.1:{self._port}/postgres"
        self._make()
        self.start()

    @property
    def running(self) -> bool:
        """True from `start` until `stop` or `kill`."""
        return self._server.running

    @property
    def pid(self) -> int:
        """The server's first process, whose children do the work; raises RuntimeError where it does not run."""
        return self._server.pid

    def start(self) -> None:
        """Start the server on its data, and wait until it takes connections."""
        # On SIGQUIT it takes its children along.
        before = [*as_user(self._owner), *dying_with_us(signal.SIGQUIT)]
        program = [str(self._programs / "postgres"), "-D", str(self._data)]
        self._server.start([*before, *program, *self._settings], self._folder)
        ready = [str(self._programs / "pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(self._port)]
        deadline = time.monotonic() + START_S
        while subprocess.run([*ready, "-U", "postbote"], timeout=10).returncode:
            self._server.look()
            if time.monotonic() > deadline:
                raise RuntimeError(f"The PostgreSQL server did not start in time: {self._server.said()}")
            time.sleep(0.05)

    def stop(self) -> None:
        """Stop it as an operator does who waits for nobody: connections are cut, what is committed is kept."""
        self._end(signal.SIGINT)

    def kill(self) -> None:
        """End it as a crash would: the next start recovers from the log."""
        self._end(signal.SIGQUIT)

    def _end(self, number: signal.Signals) -> None:
        if not self._server.end(number):
            raise RuntimeError(f"The PostgreSQL server did not end in time: {self._server.said()}")

    def _make(self) -> None:
        initdb = [str(self._programs / "initdb"), "-D", str(self._data), "-U", "postbote", "-A", "trust"]
        output_of(
            [*as_user(self._owner), *initdb, "-E", "UTF8", "--no-locale", "--no-sync"], self._folder, START_S
        )


@contextmanager
def program_server(settings: Sequence[str]) -> Iterator[PostgresProgram]:
    """Run a private server with settings (`name=value`); raises RuntimeError, which says what to install."""
    programs = find_programs()
    with tempfile.TemporaryDirectory(
        prefix="postbote-postgres-", dir=_quick_folder(), ignore_cleanup_errors=True
    ) as folder:
        server = PostgresProgram(programs, Path(folder), settings)
        try:
            yield server
        finally:
            # Nothing in there is wanted any more.
            server.kill()


def _quick_folder() -> str | None:
    # In memory, where there is room, copying a database is several times as fast.
    memory = Path("/dev/shm")
    if memory.is_dir() and os.access(memory, os.W_OK) and shutil.disk_usage(memory).free > 4 * 2**30:
        return str(memory)
    return None


def find_programs() -> Path:
    """Find the newest version's programs; raises RuntimeError, which says what to install, where there are none."""
    # Debian keeps each version's programs apart, and puts none of the server's on the PATH. Newest first.
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: _version(path), reverse=True)
    on_path = shutil.which("initdb")
    for folder in (*folders, *([Path(on_path).parent] if on_path else [])):
        if (folder / "initdb").exists() and (folder / "postgres").exists():
            return folder
    raise RuntimeError(MISSING)


def _version(programs: Path) -> int:
    return int(programs.parent.name) if programs.parent.name.isdigit() else 0


def unprivileged() -> str:
    """Return a user who may run servers that refuse to run as root; raises RuntimeError where there is none."""
    import pwd

    for name in ("postgres", "nobody"):
        with suppress(KeyError):
            return pwd.getpwnam(name).pw_name
    raise RuntimeError(
        "PostgreSQL refuses to run as root, and there is neither a user `postgres` nor `nobody`."
    )


def as_user(owner: str | None) -> list[str]:
    """Return what a command begins with that runs as that user."""
    if owner is None:
        return []
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        raise RuntimeError("PostgreSQL refuses to run as root, and there is no `setpriv` to change the user.")
    group = owner if owner != "nobody" else "nogroup"
    return [setpriv, f"--reuid={owner}", f"--regid={group}", "--clear-groups"]
