"""How commands show what they found: as a table, as lines, or as JSON for machines.

What paints is imported where something is painted: the processes come by here too, and never do.
"""

import sys
from collections.abc import Coroutine, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import typer

from broker.ending import run
from broker.errors import PostboteError
from consumers.cli.endings import tell
from consumers.cli.safe_text import json_text, line

if TYPE_CHECKING:
    from rich.text import Text

T = TypeVar("T")

AsJson = typer.Option(False, "--json", help="Print JSON, for machines.")

#: What is no longer than this stays in one piece in a table: ids, moments, states.
UNBROKEN = 28
#: A column of longer words is at least so wide; a cell of a table holds at most so many characters.
NARROWEST, LONGEST_CELL = 16, 300


def call(work: Coroutine[Any, Any, T]) -> T:
    """Run a command's work; an expected failure is told without a traceback, with exit code 1."""
    try:
        return run(work)
    except PostboteError as error:
        fail(error)
    except KeyboardInterrupt:
        raise typer.Exit(130) from None


def fail(error: PostboteError) -> NoReturn:
    """Say what happened, and end with exit code 1."""
    tell(error)
    raise typer.Exit(1)


def show_json(value: object) -> None:
    """Print JSON, indented where a person looks on."""
    typer.echo(json_text(value, indent=2 if sys.stdout.isatty() else None))


def show_table(items: Sequence[Mapping[str, Any]], columns: Mapping[str, str], nothing: str) -> None:
    """Print items as a table, one column for each key; `nothing` is said where there are none.

    A terminal that is too narrow gets lines for each item instead; a file or a pipe gets a line for each
    item, however long, so that programs like grep and awk find whole ids.
    """
    from rich.console import Console
    from rich.measure import Measurement
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False)
    if not items:
        Console(stderr=True, highlight=False, soft_wrap=True).print(Text(line(nothing), style="dim"))
        return
    rows = [[_shortened(_cell(key, item.get(key))) for key in columns] for item in items]
    table = Table(box=None, pad_edge=False, header_style="bold")
    for number, title in enumerate(columns.values()):
        widest = max(len(row[number]) for row in rows)
        whole = widest <= UNBROKEN or not console.is_terminal
        table.add_column(title, overflow="fold", no_wrap=whole, min_width=None if whole else NARROWEST)
    for row in rows:
        table.add_row(*map(Text, row))
    unlimited = console.options.update(width=1_000_000)
    if not console.is_terminal:
        console.width = max(console.width, Measurement.get(console, unlimited, table).maximum)
    elif Measurement.get(console, unlimited, table).minimum > console.width:
        for number, row in enumerate(rows):
            console.print(
                *([] if number == 0 else [""]), _lines(dict(zip(columns.values(), row, strict=True)))
            )
        return
    console.print(table)


def show_fields(item: Mapping[str, Any]) -> None:
    """Print an item, a line for each of its fields."""
    from rich.console import Console

    console = Console(highlight=False, soft_wrap=True)
    console.print(_lines({line(key): _cell(key, value) for key, value in item.items()}))


def _lines(fields: Mapping[str, str]) -> "Text":
    from rich.text import Text

    width = max((len(name) for name in fields), default=0)
    pairs = [
        Text(f"{name:<{width}}  ", style="bold").append(f"{told}", "not bold")
        for name, told in fields.items()
    ]
    return Text("\n").join(pairs)


def _cell(key: str, value: object) -> str:
    if value is None or value == "":
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list) and all(isinstance(inner, str) for inner in value):
        return line(", ".join(value)) or "–"
    if isinstance(value, list | dict):
        return json_text(value)
    return _moment(value) if key.endswith("At") and isinstance(value, str) else line(value)


def _moment(value: str) -> str:
    try:
        return f"{datetime.fromisoformat(value).astimezone(UTC):%Y-%m-%d %H:%M:%S}Z"
    except (ValueError, OverflowError):
        return line(value)


def _shortened(text: str) -> str:
    return text if len(text) <= LONGEST_CELL else text[: LONGEST_CELL - 1] + "…"
