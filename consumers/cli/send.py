"""`postbote send`: post a message as a user would, and perhaps wait for the answers.

The client is imported where it is used, so that `--help` does not wait for it.
"""

import asyncio
import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from consumers.cli.administration import segment
from consumers.cli.output import AsJson, call, show_json
from consumers.cli.safe_text import line

if TYPE_CHECKING:
    from broker.settings import Settings
    from consumers.cli.client import Client

#: How often to look for answers, in seconds, and how long nothing new means that the bot has said all.
LOOK_S, QUIET_S = 0.1, 0.6


def send(
    text: Annotated[
        str, typer.Argument(help="What the user says; the title of the button with --payload.")
    ] = "",
    channel: Annotated[str, typer.Option(help="The channel's id.")] = "demo",
    user: Annotated[str, typer.Option(help="The user's id.")] = "you",
    token: Annotated[
        str | None,
        typer.Option(envvar="POSTBOTE_ACCESS_TOKEN", help="The channel's access token; known for demo."),
    ] = None,
    payload: Annotated[str | None, typer.Option(help="Click a button that has this payload.")] = None,
    intro: Annotated[bool, typer.Option("--intro", help="Ask for the bot's introduction.")] = False,
    location: Annotated[str | None, typer.Option(metavar="LAT,LONG", help="Send a location.")] = None,
    wait: Annotated[float, typer.Option(min=0, help="Seconds to wait for the answers and show them.")] = 0,
    as_json: bool = AsJson,
) -> None:
    """Post a message to a channel as a user would."""
    from broker.settings import read_settings
    from consumers.cli.client import open_client

    message = _message(text, payload, intro, location)
    settings = read_settings()

    async def work() -> None:
        async with open_client(settings) as client:
            await _send(client, settings, channel, user, token, message, wait, as_json)

    call(work())


async def _send(
    client: "Client",
    settings: "Settings",
    channel: str,
    user: str,
    token: str | None,
    message: dict[str, Any],
    wait: float,
    as_json: bool,
) -> None:
    from consumers.cli.client import access_token

    secret = access_token(settings, channel, token)
    answers = f"/v1/channels/{segment(channel)}/conversations/{segment(user)}/responses"
    after = await _last_counter(client, answers, secret) if wait else 0
    accepted = await client.call(
        "POST",
        f"/v1/channels/webhook/{segment(channel)}/messages",
        token=secret,
        json={"message": message, "user": {"id": user}},
    )
    if as_json:
        show_json(accepted)
    elif not wait:
        typer.echo(f"Accepted as {line(accepted['id'])}.")
    if wait:
        await _show_answers(client, answers, secret, after, wait, as_json)


async def _last_counter(client: "Client", path: str, token: str) -> int:
    after = 0
    while True:
        page = await client.call("GET", path, token=token, params={"after": str(after), "limit": "200"})
        if not page["items"]:
            return after
        after = page["items"][-1]["messageCounter"]


async def _show_answers(
    client: "Client", path: str, token: str, after: int, wait: float, as_json: bool
) -> None:
    from rich.console import Console

    from consumers.cli.rendering import draw

    console = Console(highlight=False)
    ends = time.monotonic() + wait
    while time.monotonic() < ends:
        page = await client.call("GET", path, token=token, params={"after": str(after)})
        for item in page["items"]:
            after = item["messageCounter"]
            if as_json:
                show_json(item)
            else:
                console.print(*draw(item["message"]), sep="\n")
            ends = min(ends, time.monotonic() + QUIET_S)
        await asyncio.sleep(LOOK_S)


def _message(text: str, payload: str | None, intro: bool, location: str | None) -> dict[str, Any]:
    if sum((payload is not None, intro, location is not None)) > 1:
        raise typer.BadParameter("give only one of --payload, --intro and --location")
    if intro:
        return {"introMessage": {}}
    if location is not None:
        try:
            lat, long = (float(part) for part in location.split(","))
        except ValueError:
            raise typer.BadParameter("a location is LAT,LONG in degrees, such as 51.05,3.72") from None
        return {"locationMessage": {"coordinates": {"lat": lat, "long": long}}}
    if payload is not None:
        return {"postbackMessage": {"title": text or payload, "payload": payload}}
    if not text:
        raise typer.BadParameter("say something, or give --intro, --payload or --location")
    return {"textMessage": {"text": text}}
