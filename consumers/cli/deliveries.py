"""`postbote deliveries …`: what became of each response at each webhook, and trying it once more."""

from typing import Annotated, Any

import typer

from consumers.cli.administration import admin, segment, show_item
from consumers.cli.output import AsJson, show_fields, show_json, show_table

app = typer.Typer(no_args_is_help=True, help="Show what became of deliveries, and redrive them.")

Channel = Annotated[str, typer.Argument(help="The channel's id, such as ch_… or demo.")]
Delivery = Annotated[str, typer.Argument(help="The delivery's id, which is the webhook-id of its requests.")]
Status = Annotated[str | None, typer.Option(help="pending, delivered, dead or expired.")]
OfWebhook = Annotated[str | None, typer.Option(help="Only those of this webhook.")]
Limit = Annotated[int, typer.Option(min=1, max=200, help="How many, newest first.")]

_ATTEMPTS = {
    "number": "#",
    "startedAt": "When",
    "statusCode": "Status",
    "error": "Error",
    "detail": "Detail",
    "lasted": "Lasted",
    "answer": "Answer",
}


@app.command("list", epilog="Example: postbote deliveries list demo --status dead")
def list_deliveries(
    channel: Channel,
    status: Status = None,
    webhook: OfWebhook = None,
    limit: Limit = 20,
    as_json: bool = AsJson,
) -> None:
    """Show what became of a channel's newest deliveries."""
    path = f"/v1/channels/{segment(channel)}/deliveries"
    items = admin("GET", path, status=status, webhookId=webhook, limit=str(limit))["items"]
    if as_json:
        show_json(items)
        return
    columns = {
        "createdAt": "Said",
        "id": "Delivery",
        "userId": "User",
        "messageCounter": "#",
        "webhookId": "Webhook",
        "status": "Status",
        "attemptCount": "Attempts",
        "reason": "Reason",
    }
    filtered = status is not None or webhook is not None
    show_table(items, columns, "No such deliveries." if filtered else "No deliveries yet.")


@app.command()
def show(delivery: Delivery, as_json: bool = AsJson) -> None:
    """Show a delivery with its attempts."""
    found = admin("GET", f"/v1/deliveries/{segment(delivery)}")
    if as_json:
        show_json(found)
        return
    attempts = found["attempts"]
    show_fields({key: value for key, value in found.items() if key != "attempts"})
    typer.echo()
    show_table([_row(attempt) for attempt in attempts], _ATTEMPTS, "No attempts yet.")


@app.command()
def redrive(delivery: Delivery, as_json: bool = AsJson) -> None:
    """Let a dead or expired delivery wait again; it is due now."""
    redriven = admin("POST", f"/v1/deliveries/{segment(delivery)}/redrive")
    long = () if as_json else ("attempts", "response")
    show_item({key: value for key, value in redriven.items() if key not in long}, as_json)


def _row(attempt: dict[str, Any]) -> dict[str, Any]:
    lines = str(attempt.get("answer") or "").strip().splitlines()
    return {**attempt, "lasted": f"{attempt.get('durationMs')} ms", "answer": lines[0] if lines else ""}
