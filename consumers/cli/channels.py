"""`postbote channels …`: the chat channels by which bots are reached."""

from typing import Annotated, Any

import typer

from consumers.cli.administration import admin, everything, segment, show_item
from consumers.cli.output import AsJson, show_json, show_table

app = typer.Typer(no_args_is_help=True, help="Create, list, change and delete channels.")

Channel = Annotated[str, typer.Argument(help="The channel's id, such as ch_… or demo.")]


@app.command("list")
def list_channels(as_json: bool = AsJson) -> None:
    """List all channels, newest first."""
    items = everything("/v1/channels")
    if as_json:
        show_json(items)
        return
    rows = [{**item, "type": (item.get("bot") or {}).get("type")} for item in items]
    show_table(
        rows,
        {"id": "Channel", "name": "Name", "type": "Bot", "createdAt": "Created"},
        "No channels yet; make one with `postbote channels create NAME`.",
    )


@app.command(epilog='Example: postbote channels create "Support" --bot echo')
def create(
    name: str,
    bot: Annotated[str, typer.Option(help="The bot's type: echo or demo.")] = "echo",
    verify_token: Annotated[str | None, typer.Option(help="Sent in each body; made where not given.")] = None,
    as_json: bool = AsJson,
) -> None:
    """Create a channel. Its access token is shown this once."""
    body: dict[str, Any] = {"name": name, "bot": {"type": bot}}
    if verify_token is not None:
        body["verifyToken"] = verify_token
    show_item(admin("POST", "/v1/channels", body), as_json)


@app.command()
def show(channel: Channel, as_json: bool = AsJson) -> None:
    """Show a channel."""
    show_item(admin("GET", f"/v1/channels/{segment(channel)}"), as_json)


@app.command()
def update(
    channel: Channel,
    name: Annotated[str | None, typer.Option(help="Another name.")] = None,
    bot: Annotated[str | None, typer.Option(help="Another type of bot.")] = None,
    verify_token: Annotated[str | None, typer.Option(help="Another verify token.")] = None,
    as_json: bool = AsJson,
) -> None:
    """Change a channel."""
    changes: dict[str, Any] = {"name": name, "verifyToken": verify_token, "bot": bot and {"type": bot}}
    given = {key: value for key, value in changes.items() if value is not None}
    if not given:
        raise typer.BadParameter("give at least one of --name, --bot and --verify-token")
    show_item(admin("PATCH", f"/v1/channels/{segment(channel)}", given), as_json)


@app.command()
def delete(
    channel: Channel,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Delete a channel with its webhooks, conversations and turns."""
    if not yes:
        typer.confirm(f"Delete the channel {channel} with its webhooks and conversations?", abort=True)
    admin("DELETE", f"/v1/channels/{segment(channel)}")
    typer.echo(f"Deleted {channel}.")
