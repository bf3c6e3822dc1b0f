"""The demo: a channel that is ready, and a receiver in this process that prints what the bot says."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from rich.console import Console
from rich.text import Text

from broker.addresses import refusal
from broker.registry.channels import Channels
from broker.registry.webhooks import Webhooks
from broker.settings import Network, Settings
from consumers.cli.rendering import render
from consumers.composition.base import Base
from consumers.credentials import ADMIN_TOKEN_FILE, DEMO_TOKEN_FILE, kept_token
from consumers.receiver import Received, Receiver

CHANNEL = "demo"
#: The path by which the demo's own webhook is known again at the next start, when its port is another.
PATH = "/demo-receiver"


@dataclass(frozen=True, slots=True)
class Demo:
    """What a person needs to talk to the demo channel."""

    token: str
    receiver_url: str


@asynccontextmanager
async def open_demo(base: Base) -> AsyncIterator[Demo]:
    """Make the demo channel, start the receiver, and register it; leaving stops the receiver."""
    token = kept_token(base.settings.data_dir / DEMO_TOKEN_FILE, "pbc_")
    channels, webhooks = Channels(base.database), Webhooks(base.database)
    channel = await channels.get(CHANNEL)
    if channel is None:
        channel, _ = await channels.create("Demo", {"type": "demo"}, channel_id=CHANNEL, access_token=token)
    console = Console(highlight=False)

    def show(received: Received) -> None:
        console.print(render(received.body, received.checks))

    receiver = Receiver(show)
    url = (await receiver.start()).rstrip("/") + PATH
    try:
        found = await webhooks.of_channel(CHANNEL)
        known = [webhook for webhook in found.webhooks if webhook.url.endswith(PATH)] if found else []
        webhook = (
            await webhooks.update(known[0].id, {"url": url})
            if known
            else await webhooks.create(CHANNEL, url=url, events=("response.#",))
        )
        assert webhook is not None
        receiver.expect([webhook.secret], webhook.verify_token or channel.verify_token)
        yield Demo(token, url)
    finally:
        await receiver.stop()


def welcome(
    settings: Settings, address: str, demo: Demo | None, allowed: Sequence[Network], *, by_itself: bool
) -> None:
    """Tell the person who started it where it listens and what to try first."""
    console = Console(highlight=False, soft_wrap=True)
    rows: list[tuple[str, str]] = [("Listening on", address)]
    if settings.admin_token is None:
        rows.append(("Admin token", f"in {settings.data_dir / ADMIN_TOKEN_FILE}"))
    rows.append(
        (
            "Queues",
            "embedded, in " + str(settings.data_dir / "queues.db") if settings.embedded else "RabbitMQ",
        )
    )
    rows.append(("Registry", str(settings.data_dir / "registry.db") if settings.sqlite else "PostgreSQL"))
    if by_itself:
        rows.append(("Webhooks", "may reach this machine (127.0.0.0/8, ::1), since no servers are set"))
    if demo is not None:
        rows.append(("Demo channel", f"{CHANNEL}, token {demo.token}"))
        rows.append(("Demo webhook", f"{demo.receiver_url}, printed below"))
        if refusal("127.0.0.1", allowed) is not None:
            rows.append(
                (
                    "",
                    "refused as not public; to allow it: POSTBOTE_WEBHOOK_ALLOW_NETWORKS=127.0.0.0/8",
                )
            )
    console.print()
    console.print(
        Text(" Postbote ", style="bold reverse"), Text("carries what bots say to webhooks, in order.")
    )
    console.print()
    for name, value in rows:
        console.print(Text(f"  {name:<14}", style="bold"), Text(value), sep="")
    if demo is not None:
        console.print()
        console.print(Text("  Say hello, in another terminal:", style="bold"))
        console.print()
        console.print(
            Text(
                f"curl -X POST {address}/v1/channels/webhook/{CHANNEL}/messages "
                f"-H 'Authorization: Bearer {demo.token}' -H 'Content-Type: application/json' "
                """-d '{"message": {"textMessage": {"text": "hello"}}, "user": {"id": "you"}}'""",
                style="cyan",
            )
        )
    console.print()
    console.print(Text("  Ctrl-C stops it; what is not delivered by then is delivered after the next start."))
    console.print()
