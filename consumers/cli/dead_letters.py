"""`postbote dead-letters …`: what could not be processed, with the reason, and trying it once more."""

from typing import Annotated

import typer

from consumers.cli.administration import admin, piece_by_piece, segment, show_item
from consumers.cli.output import AsJson, show_json, show_table
from consumers.cli.since import Since, moment

app = typer.Typer(help="Show messages that could not be processed, and why; redrive them.")

Limit = Annotated[int, typer.Option(min=1, max=200, help="How many, newest first.")]
Letter = Annotated[str, typer.Argument(help="The dead letter's id.")]
Stage = Annotated[
    str | None, typer.Option(help="Only those that were given up there: intake, bot, delivery or broker.")
]
OfChannel = Annotated[str | None, typer.Option("--channel", help="Only those of this channel.")]


@app.callback(invoke_without_command=True, epilog="Example: postbote dead-letters list --limit 5")
def newest(context: typer.Context, limit: Limit = 20, as_json: bool = AsJson) -> None:
    """Show messages that could not be processed, and why; by itself the same as `list`."""
    if context.invoked_subcommand is None:
        list_dead_letters(limit=limit, as_json=as_json)


@app.command("list", epilog="Example: postbote dead-letters list --stage bot --limit 5 --json")
def list_dead_letters(
    stage: Stage = None, channel: OfChannel = None, limit: Limit = 20, as_json: bool = AsJson
) -> None:
    """List what could not be processed, newest first, with the reason."""
    items = admin("GET", "/v1/dead-letters", stage=stage, channelId=channel, limit=str(limit))["items"]
    if as_json:
        show_json(items)
        return
    columns = {
        "createdAt": "When",
        "id": "Dead letter",
        "stage": "Stage",
        "reason": "Reason",
        "detail": "Detail",
        "redrivenAt": "Redriven",
        "body": "Body",
    }
    filtered = stage is not None or channel is not None
    nothing = (
        "No such dead letters." if filtered else "No dead letters: everything that came in was processed."
    )
    show_table(items, columns, nothing)


@app.command()
def show(letter: Letter, as_json: bool = AsJson) -> None:
    """Show a dead letter, whole."""
    show_item(admin("GET", f"/v1/dead-letters/{segment(letter)}"), as_json)


@app.command(epilog="Example: postbote dead-letters redrive --all --stage bot --since 2h")
def redrive(
    letter: Annotated[str | None, typer.Argument(help="The dead letter's id.")] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="All that were never redriven, oldest first.")
    ] = False,
    stage: Stage = None,
    channel: OfChannel = None,
    since: Since = None,
    as_json: bool = AsJson,
) -> None:
    """Publish one dead letter, or all, again where it came from."""
    filters = {"stage": stage, "channelId": channel, "since": moment(since)}
    given = {name: value for name, value in filters.items() if value is not None}
    if (letter is None) != everything or (letter is not None and given):
        raise typer.BadParameter("give either the id of a dead letter, or --all and perhaps which of them")
    if letter is not None:
        show_item(admin("POST", f"/v1/dead-letters/{segment(letter)}/redrive"), as_json)
        return
    redriven = refused = 0
    for done in piece_by_piece("/v1/dead-letters/redrive", given):
        redriven, refused = redriven + done["redriven"], refused + done["refused"]
    if as_json:
        show_json({"redriven": redriven, "refused": refused})
        return
    typer.echo(f"Redriven: {redriven}.")
    if refused:
        typer.echo(f"Cannot go back: {refused}; `postbote dead-letters redrive ID` says why.", err=True)
