"""A deployment under test: its settings, and the processes that were started in it."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from processes import Api, Process


@dataclass
class Deployment:
    """Where a deployment runs, and the processes that were started in it."""

    environment: dict[str, str]
    folder: Path
    api: Api
    processes: list[Process] = field(default_factory=list)

    async def start(self, *commands: str, under: Sequence[str] = ()) -> list[Process]:
        """Start processes, one after the other; `under` is a program that becomes each of them."""
        started = []
        for command in commands:
            log = self.folder / f"{len(self.processes)}-{command}.log"
            process = Process(command, self.environment, log, under)
            self.processes.append(process)
            started.append(await process.start())
        return started

    async def end(self) -> None:
        """Kill what still runs."""
        for process in self.processes:
            await process.kill()
