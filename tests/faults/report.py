"""The report of the fault tests: a line of JSON for each fault, and a table at the end of the run."""

import json
import os
from pathlib import Path

from verdict import Verdict

COLUMNS = (
    ("fault", "fault"),
    ("messages", "messages"),
    ("deliveries", "deliveries"),
    ("lost", "lost"),
    ("out_of_order", "out of order"),
    ("repeated", "repeated"),
    ("silence_s", "longest silence, s"),
    ("recovery_s", "to recover, s"),
)


class Report:
    """What came of each fault in this run."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self.verdicts: list[Verdict] = []

    def add(self, verdict: Verdict) -> None:
        """Keep a verdict, and append it to the file."""
        self.verdicts.append(verdict)
        self._file.parent.mkdir(parents=True, exist_ok=True)
        with self._file.open("a") as out:
            out.write(json.dumps(verdict.row()) + "\n")

    def table(self) -> list[str]:
        """Lay out the verdicts as a table in Markdown, one row a fault."""
        rows = [[_cell(getattr(verdict, name)) for name, _ in COLUMNS] for verdict in self.verdicts]
        titles = [title for _, title in COLUMNS]
        widths = [max(len(cell) for cell in column) for column in zip(titles, *rows, strict=True)]
        lines = [titles, ["-" * width for width in widths], *rows]
        return [
            "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |"
            for line in lines
        ]

    def notes(self) -> list[str]:
        """List what else was measured."""
        return [
            f"{verdict.fault}: {', '.join(f'{name} {_cell(value)}' for name, value in verdict.notes.items())}"
            for verdict in self.verdicts
            if verdict.notes
        ]


def _cell(value: object) -> str:
    return f"{value:.2f}" if isinstance(value, float) else str(value)


#: Of this run; conftest.py prints it.
REPORT = Report(Path(os.environ.get("POSTBOTE_FAULTS_REPORT", "build/faults.jsonl")))
