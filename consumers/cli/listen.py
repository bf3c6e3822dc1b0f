"""`postbote listen`: a webhook of one's own, for as long as the command runs.

The server, the client and what paints are imported where they are used: `--help` does not wait for them.
"""

import asyncio
import signal
from typing import TYPE_CHECKING, Annotated, Any

import typer

from consumers.cli.administration import segment
from consumers.cli.output import call
from consumers.cli.safe_text import json_text, plain

if TYPE_CHECKING:
    from broker.settings import Settings
    from consumers.cli.client import Client
    from consumers.receiver import Received

#: For how long the end of the command waits for its webhook to be deleted, in seconds.
DELETE_S = 3.0
#: Headers worth showing to machines.
TELLING = ("webhook-id", "webhook-timestamp", "postbote-in-reply-to", "postbote-turn", "traceparent")


def listen(
    channel: Annotated[str, typer.Option(help="The channel's id.")] = "demo",
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65_535, help="The port; 0 takes a free one.")] = 0,
    public_url: Annotated[
        str | None, typer.Option(help="The URL by which Postbote reaches this, where it is another.")
    ] = None,
    event: Annotated[
        list[str] | None, typer.Option("--event", help="A pattern, such as response.text; may be repeated.")
    ] = None,
    count: Annotated[int, typer.Option(min=0, help="Stop after so many messages; 0 never stops.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print a line of JSON for each message.")] = False,
) -> None:
    """Receive a channel's messages here: registers a webhook, and deletes it at the end.

    Checks the signature and the token of each message, and shows it as a person would want to see it.
    """
    from broker.settings import read_settings

    settings = read_settings()
    call(_listen(settings, channel, host, port, public_url, event or ["response.#"], count, as_json))


async def _listen(
    settings: "Settings",
    channel: str,
    host: str,
    port: int,
    public_url: str | None,
    events: list[str],
    count: int,
    as_json: bool,
) -> None:
    from rich.console import Console
    from rich.text import Text

    from consumers.cli.client import CallFailed, open_client
    from consumers.cli.rendering import render
    from consumers.receiver import Receiver

    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, ended.set)
    console = Console(highlight=False)
    told = Console(stderr=True, highlight=False, soft_wrap=True)
    seen = 0

    def show(received: "Received") -> None:
        nonlocal seen
        if as_json:
            typer.echo(json_text(_line(received)))
        else:
            console.print(render(received.body, received.checks))
        seen += 1
        if count and seen >= count:
            ended.set()

    receiver = Receiver(show, host=host, port=port)
    async with open_client(settings) as client:
        try:
            address = await receiver.start()
        except OSError as error:
            raise CallFailed(
                f"Cannot listen on {host}, port {port} ({error.strerror or error}): give another with --host "
                "and --port."
            ) from None
        try:
            webhook = await _register(client, channel, public_url or f"{address}/", events)
            try:
                receiver.expect([webhook["secret"]], await _token(client, channel, webhook))
                as_what = f"for channel {channel}, as webhook {webhook['id']}"
                told.print(Text(plain(f"Listening on {address} {as_what}. Ctrl-C ends it.")))
                await ended.wait()
            finally:
                await _unregister(client, webhook["id"])
                told.print(Text(plain(f"Webhook {webhook['id']} is deleted."), style="dim"))
        finally:
            await receiver.stop()


async def _register(client: "Client", channel: str, url: str, events: list[str]) -> dict[str, Any]:
    path = f"/v1/channels/{segment(channel)}/webhooks"
    created: dict[str, Any] = await client.admin("POST", path, {"url": url, "events": events})
    return created


async def _unregister(client: "Client", webhook: str) -> None:
    from consumers.cli.client import CallFailed

    try:
        async with asyncio.timeout(DELETE_S):
            await client.admin("DELETE", f"/v1/webhooks/{segment(webhook)}")
    except TimeoutError:
        raise CallFailed(
            f"Postbote does not answer, so this is still registered: `postbote webhooks delete {webhook}`, later."
        ) from None


async def _token(client: "Client", channel: str, webhook: dict[str, Any]) -> str:
    if webhook.get("verifyToken"):
        return str(webhook["verifyToken"])
    return str((await client.admin("GET", f"/v1/channels/{segment(channel)}"))["verifyToken"])


def _line(received: "Received") -> dict[str, Any]:
    return {
        "body": received.body,
        "headers": {name: received.headers[name] for name in TELLING if name in received.headers},
        "checks": {
            "signature": received.checks.signature or "ok",
            "token": received.checks.token or "ok",
            "order": received.checks.order,
        },
    }
