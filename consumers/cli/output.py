"""How commands show what they found: as a table, as lines, or as JSON for machines."""

import asyncio
import json
import sys
from collections.abc import Coroutine, Mapping, Sequence
from typing import Any, NoReturn, TypeVar

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from broker.errors import PostboteError
from consumers.cli.rendering import plain

T = TypeVar("T")

AsJson = typer.Option(False, "--json", help="Print JSON, for machines.")


def call(work: Coroutine[Any, Any, T]) -> T:
    """Run a command's work; an expected failure is told without a traceback, with exit code 1."""
    try:
        return asyncio.run(work)
    except PostboteError as error:
        fail(error)
    except KeyboardInterrupt:
        raise typer.Exit(130) from None


def fail(error: PostboteError) -> NoReturn:
    """Say what happened, and end with exit code 1."""
    Console(stderr=True, soft_wrap=True, highlight=False).print(Text(str(error), style="red"))
    raise typer.Exit(1)


def show_json(value: object) -> None:
    """Print JSON, indented where a person looks on."""
    typer.echo(json.dumps(value, ensure_ascii=False, indent=2 if sys.stdout.isatty() else None))


def show_table(items: Sequence[Mapping[str, Any]], columns: Mapping[str, str], nothing: str) -> None:
    """Print items as a table, one column for each key; `nothing` is said where there are none."""
    console = Console(highlight=False)
    if not items:
        console.print(Text(nothing, style="dim"))
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in columns.values():
        table.add_column(title, overflow="fold")
    for item in items:
        table.add_row(*(Text(_cell(item.get(key))) for key in columns))
    console.print(table)


def show_fields(item: Mapping[str, Any]) -> None:
    """Print an item, a line for each of its fields."""
    console = Console(highlight=False, soft_wrap=True)
    width = max((len(key) for key in item), default=0)
    for key, value in item.items():
        console.print(Text(f"{key:<{width}}  ", style="bold") + Text(_cell(value)))


def _cell(value: object) -> str:
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list) and all(isinstance(inner, str) for inner in value):
        return plain(", ".join(value))
    if isinstance(value, list | dict):
        return plain(json.dumps(value, ensure_ascii=False))
    return plain(value)
