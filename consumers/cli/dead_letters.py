"""`postbote dead-letters`: what could not be processed, with the reason."""

from typing import Annotated

import typer

from consumers.cli.administration import admin
from consumers.cli.output import AsJson, show_json, show_table


def dead_letters(
    limit: Annotated[int, typer.Option(min=1, max=200, help="How many, newest first.")] = 20,
    as_json: bool = AsJson,
) -> None:
    """Show messages that could not be processed, and why."""
    items = admin("GET", "/v1/dead-letters", limit=str(limit))["items"]
    if as_json:
        show_json(items)
        return
    columns = {"createdAt": "When", "stage": "Stage", "reason": "Reason", "detail": "Detail", "body": "Body"}
    show_table(items, columns, "No dead letters: everything that came in was processed.")
