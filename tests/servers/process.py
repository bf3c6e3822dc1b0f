"""A server as a process of this machine: started, ended, and never left behind."""

import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

END_S = 30.0


class ServerProcess:
    """One server's process, whose output goes to a file."""

    def __init__(self, name: str, output: Path) -> None:
        self._name = name
        self._output = output
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def running(self) -> bool:
        """True from `start` until `end`."""
        return self._process is not None

    @property
    def pid(self) -> int:
        """The process; raises RuntimeError where the server does not run."""
        if self._process is None:
            raise RuntimeError(f"{self._name} does not run")
        return self._process.pid

    def start(
        self, command: Sequence[str], folder: Path, environment: Mapping[str, str] | None = None
    ) -> None:
        """Start the server in a folder."""
        with self._output.open("ab") as sink:
            self._process = subprocess.Popen(
                command,
                cwd=folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=subprocess.STDOUT,
            )

    def look(self) -> None:
        """Raise RuntimeError with the last of what it said where it has ended by itself."""
        if self._process is None or self._process.poll() is not None:
            raise RuntimeError(f"{self._name} did not start: {self.said()}")

    def said(self) -> str:
        """Return the last of its output."""
        return self._output.read_text(errors="replace")[-2000:]

    def send(self, number: signal.Signals) -> None:
        """Send a signal where it runs."""
        if self._process is not None:
            self._process.send_signal(number)

    def end(self, number: signal.Signals) -> bool:
        """End it by a signal; False where that did not do within `END_S`, and SIGKILL had to."""
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(number)
            try:
                process.wait(timeout=END_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                return False
        return True


def dying_with_us(number: signal.Signals = signal.SIGKILL) -> list[str]:
    """Return what before a command has the kernel end it when this test run is killed and cannot.

    It has to stand next to the command: a change of user makes the kernel forget it.
    """
    setpriv = shutil.which("setpriv")
    if setpriv is None or sys.platform != "linux":
        return []
    return [setpriv, "--pdeathsig", number.name.removeprefix("SIG")]


def output_of(
    command: Sequence[str], folder: Path, within_s: float, environment: Mapping[str, str] | None = None
) -> str:
    """Run a command in a folder to its end; raises RuntimeError with what it said where it fails."""
    done = subprocess.run(
        command,
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=within_s,
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed: {done.stdout}{done.stderr}")
    return done.stdout


def free_port() -> int:
    """Find a port of the loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
