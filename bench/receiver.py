"""Receivers: nginx, which costs the machine least and logs what came, and one that takes its time to answer.

Both write down what is needed to prove afterwards that nothing was lost, reordered or unsigned.
"""

import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

CONF = """\
daemon off;
worker_processes 1;
pid {folder}/pid;
error_log {folder}/error.log crit;
events {{ worker_connections 4096; }}
http {{
  log_format bench '$msec $http_webhook_id $http_webhook_timestamp $http_webhook_signature $content_length';
  access_log {folder}/access.log bench buffer=64k flush=50ms;
  keepalive_requests 100000000;
  keepalive_timeout 600s;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  server {{
    listen 127.0.0.1:{port} backlog=1024;
    location / {{ return 200; }}
  }}
}}
"""
START_S = 10.0


@dataclass(frozen=True, slots=True)
class Arrival:
    """One request as the receiver's log has it; `-` where a header was missing."""

    at: float
    webhook_id: str
    timestamp: str
    signature: str
    length: str


class Nginx:
    """nginx with one worker, which answers each request with an empty 200."""

    def __init__(self, folder: Path, port: int) -> None:
        self._log = folder / "access.log"
        conf = folder / "nginx.conf"
        conf.write_text(CONF.format(folder=folder, port=port))
        folder.chmod(0o755)
        program = shutil.which("nginx") or "nginx"
        self._server = subprocess.Popen([program, "-c", str(conf), "-p", str(folder), "-g", "user root;"])
        self.url = f"http://127.0.0.1:{port}/hook"
        deadline = time.monotonic() + START_S
        while len(self.processes()) < 2:
            if self._server.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"nginx did not start: {(folder / 'error.log').read_text()}")
            time.sleep(0.02)

    def processes(self) -> list[psutil.Process]:
        """List its processes: the one that it was started as, and its worker."""
        master = psutil.Process(self._server.pid)
        return [master, *master.children()]

    def lines(self) -> int:
        """Count the requests so far."""
        return sum(piece.count(b"\n") for piece in self._pieces())

    def arrivals(self) -> list[Arrival]:
        """Read what came, in the order in which it was answered."""
        return read_arrivals(self._log)

    def end(self) -> None:
        """Stop it, which writes the rest of the log."""
        self._server.terminate()
        self._server.wait(timeout=10)

    def _pieces(self) -> Iterator[bytes]:
        with self._log.open("rb") as log:
            while piece := log.read(1 << 20):
                yield piece


def read_arrivals(log: Path) -> list[Arrival]:
    """Read a receiver's log, in the order in which it answered."""
    found = []
    # The last line may be on its way still.
    for line in log.read_text().split("\n")[:-1]:
        at, webhook_id, timestamp, signature, length = line.split(" ")
        found.append(Arrival(float(at), webhook_id, timestamp, signature, length))
    return found
