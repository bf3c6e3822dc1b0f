"""`postbote webhooks …`: the URLs that get what bots say, and what became of each delivery."""

from typing import Annotated, Any

import typer

from consumers.cli.administration import admin, everything, piece_by_piece, segment, show_item
from consumers.cli.deliveries import list_deliveries
from consumers.cli.output import AsJson, show_json, show_table
from consumers.cli.since import Since, moment

app = typer.Typer(no_args_is_help=True, help="Register, list, change, test, redrive and delete webhooks.")

Channel = Annotated[str, typer.Argument(help="The channel's id, such as ch_… or demo.")]
Webhook = Annotated[str, typer.Argument(help="The webhook's id, wh_…")]
Events = Annotated[
    list[str] | None,
    typer.Option("--event", "--events", help="A pattern, such as response.text; may be repeated."),
]
Timeout = Annotated[float | None, typer.Option(help="Seconds that one attempt may take.")]
Retry = Annotated[
    list[float] | None,
    typer.Option("--retry", help="Seconds to wait before another attempt; repeated: before each later one."),
]
TimeToLive = Annotated[
    float | None, typer.Option(help="How old an answer may be when it is delivered, in seconds.")
]
Rate = Annotated[
    float | None, typer.Option("--rate-limit", help="Deliveries a second, at most; 0.001 or more.")
]
Headers = Annotated[list[str] | None, typer.Option("--header", help='"Name: value"; may be repeated.')]


@app.command("list")
def list_webhooks(channel: Channel, as_json: bool = AsJson) -> None:
    """List a channel's webhooks, newest first."""
    items = everything(f"/v1/channels/{segment(channel)}/webhooks")
    if as_json:
        show_json(items)
        return
    columns = {
        "id": "Webhook",
        "url": "URL",
        "events": "Events",
        "enabled": "Enabled",
        "disabledReason": "Why not",
    }
    show_table(
        items, columns, f"No webhooks yet; register one with `postbote webhooks create {channel} URL`."
    )


@app.command(epilog="Example: postbote webhooks create ch_… https://example.com/hook --event response.text")
def create(
    channel: Channel,
    url: Annotated[str, typer.Argument(help="Where to post; https is strongly advised.")],
    event: Events = None,
    header: Headers = None,
    verify_token: Annotated[
        str | None, typer.Option(help="Sent in each body; the channel's otherwise.")
    ] = None,
    timeout: Timeout = None,
    retry: Retry = None,
    time_to_live: TimeToLive = None,
    rate_limit: Rate = None,
    as_json: bool = AsJson,
) -> None:
    """Register a webhook. Its secret is shown this once."""
    policy = _policy(timeout, retry, time_to_live, rate_limit)
    body: dict[str, Any] = {"url": url, **_given(event, header, verify_token), **policy}
    show_item(admin("POST", f"/v1/channels/{segment(channel)}/webhooks", body), as_json)


@app.command()
def show(webhook: Webhook, as_json: bool = AsJson) -> None:
    """Show a webhook."""
    show_item(admin("GET", f"/v1/webhooks/{segment(webhook)}"), as_json)


@app.command(epilog="Example: postbote webhooks update wh_… --enable")
def update(
    webhook: Webhook,
    url: Annotated[str | None, typer.Option(help="Another URL.")] = None,
    event: Events = None,
    header: Headers = None,
    verify_token: Annotated[str | None, typer.Option(help="Another verify token.")] = None,
    timeout: Timeout = None,
    retry: Retry = None,
    time_to_live: TimeToLive = None,
    rate_limit: Rate = None,
    enable: Annotated[
        bool | None, typer.Option("--enable/--disable", help="Deliver to it, or let it wait.")
    ] = None,
    as_json: bool = AsJson,
) -> None:
    """Change a webhook. What waits for it goes to the new URL."""
    changes = _given(event, header, verify_token) | _policy(timeout, retry, time_to_live, rate_limit)
    if url is not None:
        changes["url"] = url
    if enable is not None:
        changes["enabled"] = enable
    if not changes:
        raise typer.BadParameter("give at least one option that changes something")
    show_item(admin("PATCH", f"/v1/webhooks/{segment(webhook)}", changes), as_json)


@app.command()
def delete(webhook: Webhook) -> None:
    """Delete a webhook; what waits for it is given up."""
    admin("DELETE", f"/v1/webhooks/{segment(webhook)}")
    typer.echo(f"Deleted {webhook}.")


@app.command("test")
def ping(webhook: Webhook, as_json: bool = AsJson) -> None:
    """Post one signed ping now, and show what came of it; exit code 1 where it was not taken."""
    outcome = admin("POST", f"/v1/webhooks/{segment(webhook)}/test")
    show_item(outcome, as_json)
    if not outcome["delivered"]:
        raise typer.Exit(1)


@app.command("rotate-secret")
def rotate_secret(webhook: Webhook, as_json: bool = AsJson) -> None:
    """Give it a new secret; the old one signs too for 24 hours."""
    show_item(admin("POST", f"/v1/webhooks/{segment(webhook)}/rotate-secret"), as_json)


@app.command(epilog="Example: postbote webhooks redrive wh_… --since 2h")
def redrive(webhook: Webhook, since: Since = None, as_json: bool = AsJson) -> None:
    """Let its dead and expired deliveries wait again, each conversation's in order."""
    which = {name: value for name, value in {"since": moment(since)}.items() if value is not None}
    pieces = piece_by_piece(f"/v1/webhooks/{segment(webhook)}/redrive", which)
    redriven = sum(done["redriven"] for done in pieces)
    if as_json:
        show_json({"redriven": redriven})
    else:
        typer.echo(f"Redriven: {redriven}.")


# The same as `postbote deliveries list`, where whoever works on a webhook looks for it.
app.command("deliveries")(list_deliveries)


def _given(events: list[str] | None, headers: list[str] | None, verify_token: str | None) -> dict[str, Any]:
    pairs = {}
    for header in headers or []:
        name, colon, value = header.partition(":")
        if not colon:
            raise typer.BadParameter(f'a header is written "Name: value", not {header!r}')
        pairs[name.strip()] = value.strip()
    wanted: dict[str, Any] = {
        "events": events or None,
        "headers": pairs or None,
        "verifyToken": verify_token,
    }
    return {key: value for key, value in wanted.items() if value is not None}


def _policy(
    timeout: float | None, retry: list[float] | None, time_to_live: float | None, rate_limit: float | None
) -> dict[str, Any]:
    wanted = {
        "timeoutSeconds": timeout,
        "retrySchedule": retry or None,
        "timeToLiveSeconds": time_to_live,
        "rateLimit": rate_limit,
    }
    return {key: value for key, value in wanted.items() if value is not None}
