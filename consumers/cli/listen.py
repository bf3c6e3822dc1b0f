"""`postbote listen`: a webhook of one's own, for as long as the command runs.

The server, the client and what paints are imported where they are used: `--help` does not wait for them.
"""

import asyncio
import errno
import os
import signal
import sys
from contextlib import suppress
from http import HTTPStatus
from typing import TYPE_CHECKING, Annotated, Any, TextIO, cast

import typer

from consumers.cli.administration import segment
from consumers.cli.output import call
from consumers.cli.safe_text import json_text, plain

if TYPE_CHECKING:
    from broker.settings import Settings
    from consumers.background_writer import BackgroundWriter
    from consumers.cli.client import Client
    from consumers.receiver import Received, Receiver

#: For how long the end of the command waits for its webhook to be deleted, in seconds.
DELETE_S = 3.0
#: When the webhook of a command that died expires, and how often one that lives puts that off, in seconds.
EXPIRES_S, RENEW_S = 120, 30.0
#: How often to look whether somebody reads what is written, in seconds.
LOOK_S = 0.5
#: For how long the end of the command waits for its last lines to be read, in seconds.
LAST_LINES_S = 5.0
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

    from consumers.background_writer import BackgroundWriter
    from consumers.cli.client import CallFailed, open_client
    from consumers.cli.rendering import render
    from consumers.receiver import Receiver

    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, ended.set)
    # A reader that stands still must not keep the webhook from being renewed: senders are told to come again.
    out = BackgroundWriter(sys.stdout, lambda lines, why: "")
    console = Console(file=cast(TextIO, out), highlight=False)
    told = Console(stderr=True, highlight=False, soft_wrap=True)
    seen = 0

    def show(received: "Received") -> None:
        nonlocal seen
        if as_json:
            out.write(json_text(_line(received)) + "\n")
        else:
            console.print(render(received.body, received.checks))
        seen += 1
        if count and seen >= count:
            ended.set()

    receiver = Receiver(show, host=host, port=port, room=out.room)
    async with open_client(settings) as client:
        try:
            address = await receiver.start()
        except OSError as error:
            raise CallFailed(
                f"Cannot listen on {host}, port {port} ({error.strerror or error}): give another with --host "
                "and --port."
            ) from None
        registration = Registration(client, receiver, channel, public_url or f"{address}/", events)
        try:
            await registration.make()
            try:
                as_what = f"for channel {channel}, as webhook {registration.id}"
                told.print(Text(plain(f"Listening on {address} {as_what}. Ctrl-C ends it.")))
                await _until_ended(ended, registration, out)
            finally:
                await registration.delete()
                told.print(Text(plain(f"Webhook {registration.id} is deleted."), style="dim"))
        finally:
            await receiver.stop()
            await asyncio.to_thread(out.close, LAST_LINES_S)
    if out.lost and out.why != os.strerror(errno.EPIPE):
        raise CallFailed(f"What came cannot be written to standard output: {out.why}.")


async def _until_ended(ended: asyncio.Event, registration: "Registration", out: "BackgroundWriter") -> None:
    """Put off again and again when the webhook expires, until told to end or until nobody reads any more."""
    loop = asyncio.get_running_loop()
    renewed = loop.time()
    while not ended.is_set() and not out.lost:
        with suppress(TimeoutError):
            async with asyncio.timeout(LOOK_S):
                await ended.wait()
        if loop.time() - renewed > RENEW_S and not ended.is_set():
            renewed = loop.time()
            await registration.renew()


class Registration:
    """The webhook of a receiver. It expires by itself soon after nobody renews it any more."""

    def __init__(
        self, client: "Client", receiver: "Receiver", channel: str, url: str, events: list[str]
    ) -> None:
        self._client = client
        self._receiver = receiver
        self._channel = channel
        self._wanted = {"url": url, "events": events, "expiresInSeconds": EXPIRES_S}
        self.id = ""

    async def make(self) -> None:
        """Register the webhook, and tell the receiver what its deliveries are signed with."""
        channel = f"/v1/channels/{segment(self._channel)}"
        webhook = await self._client.admin("POST", f"{channel}/webhooks", self._wanted)
        self.id = webhook["id"]
        token = webhook.get("verifyToken") or (await self._client.admin("GET", channel))["verifyToken"]
        self._receiver.expect([webhook["secret"]], str(token))

    async def renew(self) -> None:
        """Put off when it expires; where it has expired, while this machine slept for example, register anew."""
        from consumers.cli.client import CallFailed

        try:
            await self._client.admin(
                "PATCH", f"/v1/webhooks/{segment(self.id)}", {"expiresInSeconds": EXPIRES_S}
            )
        except CallFailed as failed:
            # Postbote that is away is asked again the next time.
            if failed.status == HTTPStatus.NOT_FOUND:
                with suppress(CallFailed):
                    await self.make()

    async def delete(self) -> None:
        """Delete the webhook; raises CallFailed where that is not done within `DELETE_S`."""
        from consumers.cli.client import CallFailed

        try:
            async with asyncio.timeout(DELETE_S):
                await self._client.admin("DELETE", f"/v1/webhooks/{segment(self.id)}")
        except TimeoutError:
            raise CallFailed(
                f"Postbote does not answer. Webhook {self.id} expires by itself within {EXPIRES_S} seconds."
            ) from None
        except CallFailed as failed:
            if failed.status != HTTPStatus.NOT_FOUND:
                raise


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
