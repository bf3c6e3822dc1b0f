"""A PgBouncer of the test's own before a PostgreSQL server."""

import os
import shutil
import signal
import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from servers.postgres_program import as_user, unprivileged
from servers.process import ServerProcess, dying_with_us, free_port
from sqlalchemy.engine import make_url

START_S = 10.0


def program() -> str | None:
    """Return where PgBouncer is, or None where it is not installed."""
    return shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin")


@contextmanager
def pgbouncer(url: str, pool_mode: str) -> Iterator[str]:
    """Run PgBouncer before the database of a URL, and give the URL by which it is reached through it."""
    found = program()
    assert found is not None
    behind, port = make_url(url), free_port()
    # It refuses to run as root.
    owner = unprivileged() if os.geteuid() == 0 else None
    with tempfile.TemporaryDirectory(prefix="postbote-pgbouncer-") as name:
        folder = Path(name)
        settings = folder / "pgbouncer.ini"
        password = f" password={behind.password}" if behind.password else ""
        settings.write_text(
            f"[databases]\n* = host={behind.host} port={behind.port} user={behind.username}{password}\n"
            f"[pgbouncer]\nlisten_addr=127.0.0.1\nlisten_port={port}\nunix_socket_dir=\n"
            f"auth_type=any\npool_mode={pool_mode}\n"
        )
        if owner is not None:
            shutil.chown(folder, owner)
            shutil.chown(settings, owner)
        server = ServerProcess("PgBouncer", folder / "log")
        server.start([*as_user(owner), *dying_with_us(), found, "-q", str(settings)], folder)
        try:
            give_up = time.monotonic() + START_S
            while not _answers(port):
                server.look()
                assert time.monotonic() < give_up, server.said()
                time.sleep(0.02)
            yield behind.set(host="127.0.0.1", port=port).render_as_string(hide_password=False)
        finally:
            server.end(signal.SIGINT)


def _answers(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False
