"""`postbote dead-letters …`: what could not be processed, with the reason."""

from typing import Annotated

import typer

from consumers.cli.administration import admin
from consumers.cli.output import AsJson, show_json, show_table

app = typer.Typer(help="Show messages that could not be processed, and why.")

Limit = Annotated[int, typer.Option(min=1, max=200, help="How many, newest first.")]


@app.callback(invoke_without_command=True, epilog="Example: postbote dead-letters list --limit 5")
def newest(context: typer.Context, limit: Limit = 20, as_json: bool = AsJson) -> None:
    """Show messages that could not be processed, and why; by itself the same as `list`."""
    if context.invoked_subcommand is None:
        list_dead_letters(limit, as_json)


@app.command("list", epilog="Example: postbote dead-letters list --limit 5 --json")
def list_dead_letters(limit: Limit = 20, as_json: bool = AsJson) -> None:
    """List what could not be processed, newest first, with the reason."""
    items = admin("GET", "/v1/dead-letters", limit=str(limit))["items"]
    if as_json:
        show_json(items)
        return
    columns = {"createdAt": "When", "stage": "Stage", "reason": "Reason", "detail": "Detail", "body": "Body"}
    show_table(items, columns, "No dead letters: everything that came in was processed.")
