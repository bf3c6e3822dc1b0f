"""`postbote channels …`: the chat channels by which bots are reached."""

from typing import Annotated, Any

import typer

from consumers.cli.administration import admin, everything, segment, show_item
from consumers.cli.output import AsJson, show_json, show_table

app = typer.Typer(no_args_is_help=True, help="Create, list, change and delete channels.")

Channel = Annotated[str, typer.Argument(help="The channel's id, such as ch_… or demo.")]
Retry = Annotated[
    list[float] | None,
    typer.Option(
        "--retry",
        help="For webhooks that set none: seconds to wait before another attempt; repeated: before each later one.",
    ),
]
TimeToLive = Annotated[
    float | None,
    typer.Option(
        help="For webhooks that set none: how old an answer may be when it is delivered, in seconds."
    ),
]


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
    retry: Retry = None,
    time_to_live: TimeToLive = None,
    as_json: bool = AsJson,
) -> None:
    """Create a channel. Its access token is shown this once."""
    body = _given(name, bot, verify_token, retry, time_to_live)
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
    retry: Retry = None,
    time_to_live: TimeToLive = None,
    as_json: bool = AsJson,
) -> None:
    """Change a channel."""
    changes = _given(name, bot, verify_token, retry, time_to_live)
    if not changes:
        raise typer.BadParameter("give at least one option that changes something")
    show_item(admin("PATCH", f"/v1/channels/{segment(channel)}", changes), as_json)


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


def _given(
    name: str | None,
    bot: str | None,
    verify_token: str | None,
    retry: list[float] | None,
    time_to_live: float | None,
) -> dict[str, Any]:
    wanted = {
        "name": name,
        "bot": bot and {"type": bot},
        "verifyToken": verify_token,
        "retrySchedule": retry or None,
        "timeToLiveSeconds": time_to_live,
    }
    return {key: value for key, value in wanted.items() if value is not None}
