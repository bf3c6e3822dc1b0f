"""The request of an attempt, as bytes: signed anew each time, as Standard Webhooks 1.0 has it. Pure.

What is the same for all deliveries of a webhook is made once and kept for as long as the webhook is the same.
"""

import re
from dataclasses import dataclass
from datetime import datetime

from broker import __version__
from broker.models.outbound import webhook_body
from broker.models.records import BotResponse
from broker.registry.records import Webhook
from broker.signature import sign
from broker.trace import child
from broker.webhook_url import WebhookUrl
from consumers.http.opening import Origin

USER_AGENT = f"Postbote/{__version__}"
#: Headers that a webhook's own take the place of.
_DEFAULTS = {"User-Agent": USER_AGENT, "Accept": "*/*"}
#: What would end a line, or be read otherwise by some server; a tab is a blank within a header.
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
#: Webhooks whose part is kept; the one that was made first goes first.
MOST_KEPT = 20_000


@dataclass(frozen=True, slots=True)
class Fixed:
    """What is the same for all deliveries of one webhook."""

    webhook: Webhook
    origin: Origin
    #: The request line and the headers, up to where those of one delivery begin.
    head: bytes

    @classmethod
    def of(cls, webhook: Webhook) -> "Fixed":
        """Make it; raises ValueError where the URL or a header is none."""
        url = WebhookUrl.of(webhook.url)
        own = {name.lower() for name in webhook.headers}
        headers = {
            "Host": url.host_header,
            "Content-Type": "application/json",
            **{name: value for name, value in _DEFAULTS.items() if name.lower() not in own},
            **webhook.headers,
        }
        lines = [f"POST {url.target} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
        if any(map(_CONTROL.search, lines)):
            raise ValueError("a header or the URL holds a control character")
        origin = Origin(url.host, url.port, url.tls)
        return cls(
            webhook, origin, "".join(f"{line}\r\n" for line in lines).encode("utf-8", "surrogateescape")
        )


class Requests:
    """Writes requests, and keeps what is the same for all of a webhook."""

    def __init__(self) -> None:
        self._kept: dict[str, Fixed] = {}

    def fixed(self, webhook: Webhook) -> Fixed:
        """Return a webhook's part; raises ValueError where its URL or a header is none."""
        kept = self._kept.get(webhook.id)
        if kept is None or kept.webhook is not webhook:
            kept = Fixed.of(webhook)
            if len(self._kept) >= MOST_KEPT:
                del self._kept[next(iter(self._kept))]
            self._kept[webhook.id] = kept
        return kept


def request(fixed: Fixed, response: BotResponse, verify_token: str, delivery_id: str, at: datetime) -> bytes:
    """Write the request of one attempt, with its own timestamp and the delivery's lasting id.

    The W3C trace context goes on from the user's message.
    """
    body = webhook_body(response, verify_token)
    timestamp = int(at.timestamp())
    webhook = fixed.webhook
    trace = "" if response.traceparent is None else f"traceparent: {child(response.traceparent)}\r\n"
    return b"%b%b\r\n%b" % (
        fixed.head,
        (
            f"webhook-id: {delivery_id}\r\n"
            f"webhook-timestamp: {timestamp}\r\n"
            f"webhook-signature: {sign(webhook.secrets(at), delivery_id, timestamp, body)}\r\n"
            f"postbote-in-reply-to: {response.in_reply_to}\r\n"
            f"postbote-turn: {response.index}/{response.count}\r\n"
            f"{trace}Content-Length: {len(body)}\r\n"
        ).encode(),
        body,
    )
