"""Processes of Postbote under measurement: started as an operator does, with what they cost read from the kernel."""

import asyncio
import os
import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import psutil

START_S = 60.0
STOP_S = 30.0


@dataclass
class Child:
    """One process of Postbote."""

    name: str
    process: asyncio.subprocess.Process
    ends: float | None = None

    @property
    def pid(self) -> int:
        """Its process id."""
        return self.process.pid

    def memory_mb(self) -> float:
        """Return what it holds in memory now: proportional set size is what it costs, resident what `top` shows."""
        return float(psutil.Process(self.pid).memory_info().rss) / 1e6

    async def stop(self) -> None:
        """End it as an operator does."""
        if self.process.returncode is None:
            self.process.terminate()
            try:
                async with asyncio.timeout(STOP_S):
                    await self.process.wait()
            except TimeoutError:
                self.process.kill()
                await self.process.wait()


#: Runs a command of Postbote, as `postbote` does.
PROGRAM = "consumers.cli.main"


async def start(name: str, environment: Mapping[str, str], program: str = PROGRAM) -> Child:
    """Start `postbote <name>`; what it logs as warnings and errors is seen in the terminal."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        program,
        name,
        env={**os.environ, "POSTBOTE_LOG_LEVEL": "warning", **environment},
        stdout=sys.stderr,
    )
    return Child(name, process)


async def run(name: str, environment: Mapping[str, str]) -> None:
    """Run a `postbote` command to its end; raises RuntimeError where it fails."""
    child = await start(name, environment)
    if await child.process.wait():
        raise RuntimeError(f"postbote {name} failed")


@dataclass
class Meter:
    """Reads the CPU time of groups of processes, in seconds, and the time beside it."""

    groups: Mapping[str, Iterable[int]]
    at: float = 0.0
    spent: dict[str, float] = field(default_factory=dict)

    def read(self) -> "Meter":
        """Read all groups now."""
        spent = {}
        for name, pids in self.groups.items():
            total = 0.0
            for pid in pids:
                # Everything else is started by this process; its own part is what it does itself.
                for process in [psutil.Process(pid)] if pid == os.getpid() else family(pid):
                    try:
                        times = process.cpu_times()
                    except psutil.NoSuchProcess:
                        continue
                    total += times.user + times.system
            spent[name] = total
        return Meter(self.groups, time.perf_counter(), spent)

    def since(self, before: "Meter", messages: int) -> dict[str, float]:
        """Return the microseconds of CPU that each group spent for a message since an earlier reading."""
        return {name: (self.spent[name] - before.spent[name]) * 1e6 / messages for name in self.groups}


def family(pid: int) -> list[psutil.Process]:
    """List a process and all that it started; none where it is gone."""
    try:
        process = psutil.Process(pid)
        return [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []
