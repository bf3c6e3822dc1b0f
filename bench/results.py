"""What was measured: rows with their targets, as JSON, as a table, and as plots."""

import json
import platform
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "results"
DOCS = Path(__file__).parents[1] / "docs"

#: Titles, and lines of cells.
Table = tuple[Sequence[str], list[list[str]]]


@dataclass(frozen=True)
class Row:
    """One line of the table; `value` is compared with `target` where there is one."""

    number: int
    what: str
    value: float
    unit: str = ""
    #: At least so much, or at most where `at_most` says so.
    target: float | None = None
    at_most: bool = False
    detail: str = ""
    data: Mapping[str, Any] = field(default_factory=dict)

    @property
    def met(self) -> bool | None:
        """True where the target is met; None where there is none."""
        if self.target is None:
            return None
        return self.value <= self.target if self.at_most else self.value >= self.target

    def cells(self) -> list[str]:
        """Write it as the cells of a table."""
        sign = "≤" if self.at_most else "≥"
        target = (
            "" if self.target is None else f"{sign} {number_of(self.target)}{self.unit and ' ' + self.unit}"
        )
        verdict = {True: "yes", False: "**no**", None: ""}[self.met]
        value = f"{number_of(self.value)}{self.unit and ' ' + self.unit}"
        return [str(self.number), self.what, value, target, verdict, self.detail]


TITLES = ("#", "measured", "here", "target", "met", "in detail")


def number_of(value: float) -> str:
    """Write a number with as many digits as it is worth."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def keep(name: str, rows: Sequence[Row]) -> None:
    """Write a benchmark's rows to bench/results."""
    FOLDER.mkdir(exist_ok=True)
    found = {
        "at": time.strftime("%Y-%m-%d %H:%M:%S"),
        "python": platform.python_version(),
        "rows": [{**asdict(row), "met": row.met} for row in rows],
    }
    (FOLDER / f"{name}.json").write_text(json.dumps(found, indent=1) + "\n")


def kept() -> list[Row]:
    """Read all rows of bench/results, in the order of their numbers."""
    rows = []
    for file in sorted(FOLDER.glob("*.json")):
        if file.name.startswith("quick-"):
            continue
        for row in json.loads(file.read_text()).get("rows", []):
            row.pop("met")
            rows.append(Row(**row))
    return sorted(rows, key=lambda row: row.number)


def markdown(rows: Sequence[Row]) -> str:
    """Lay rows out as a table in Markdown."""
    return lay_out(TITLES, [row.cells() for row in rows])


def lay_out(titles: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """Lay lines of cells out as a table in Markdown."""
    whole = [titles, ["---"] * len(titles), *lines]
    return "\n".join("| " + " | ".join(line) + " |" for line in whole)


def put_between(text: str, name: str, table: str) -> str:
    """Put a table between the marks of its name; raises ValueError where a text has none."""
    begin, end = (f"<!-- {name}: {word} -->" for word in ("begin", "end"))
    before, begun, rest = text.partition(begin)
    _, ended, after = rest.partition(end)
    if not (begun and ended):
        raise ValueError(f"there is no place for {name}; write {begin} and {end}, each on a line of its own")
    return f"{before}{begin}\n{table}\n{end}{after}"


def write_docs(rows: Sequence[Row]) -> None:
    """Put the table into docs/performance.md, between its marks."""
    page = DOCS / "performance.md"
    page.write_text(put_between(page.read_text(), "measured", markdown(rows)))
