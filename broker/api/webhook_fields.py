"""What a webhook's URL, events and headers may be. Pure."""

import re
import socket
from collections.abc import Mapping, Sequence

from broker.addresses import refusal
from broker.models.message_objects import KINDS
from broker.settings import Network
from broker.topology import matches
from broker.webhook_url import WebhookUrl

LONGEST_URL = 2048
MOST_EVENTS = 20
LONGEST_EVENT = 255
MOST_HEADERS = 20
LONGEST_HEADER = 1024

_UNSAFE = re.compile(r"[^\x21-\x7e\x80-\U0010ffff]|[\x80-\xa0\u2028\u2029\\]")
EVENT_PATTERN = r"(\*|#|[A-Za-z0-9_-]+)(\.(\*|#|[A-Za-z0-9_-]+))*"
HEADER_NAME = r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,100}"
_PATTERN = re.compile(EVENT_PATTERN)
_HEADER_NAME = re.compile(HEADER_NAME)
_HEADER_VALUE = re.compile(r"[\x20-\x7e\t]*")
#: A host that the C library reads as an IPv4 address, though it is not written as one: 127.1, 0x7f000001.
_NUMERIC_HOST = re.compile(r"[0-9a-fx.]+", re.IGNORECASE)
#: What Postbote writes itself, or what would change how a request is read.
_RESERVED_HEADERS = frozenset(
    {
        "connection",
        "content-encoding",
        "content-length",
        "content-type",
        "expect",
        "host",
        "keep-alive",
        "proxy-connection",
        "te",
        "traceparent",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
_RESERVED_PREFIXES = ("webhook-", "postbote-")
#: All that a webhook can be told of.
EVENTS = tuple(f"response.{kind}" for kind in KINDS)


def check_url(url: str) -> str:
    """Return a URL that a delivery can be posted to; raises ValueError otherwise."""
    if len(url) > LONGEST_URL:
        raise ValueError(f"a URL has at most {LONGEST_URL} characters")
    if _UNSAFE.search(url):
        raise ValueError("a URL holds no spaces, control characters or backslashes")
    if "#" in url:
        raise ValueError("a webhook's URL has no fragment (#…)")
    if not re.match(r"https?://", url, re.IGNORECASE):
        raise ValueError("a webhook's URL begins with https:// or http://")
    host = WebhookUrl.of(url).host
    if host.strip(".") != host.rstrip(".") or ".." in host:
        raise ValueError("a webhook's URL names a host")
    # Looked for in what was sent: a parser leaves an empty user out.
    if "@" in re.split(r"[/?]", url.partition("://")[2], maxsplit=1)[0]:
        raise ValueError("no user or password in the URL; use a header of the webhook for credentials")
    return url


def refused_target(url: str, allowed: Sequence[Network]) -> str | None:
    """Say why a URL's host is refused already before any name is resolved; None where it is not.

    What a name stands for is looked at when a delivery connects.
    """
    host = WebhookUrl.of(url).host.rstrip(".")
    if host == "localhost" or host.endswith(".localhost"):
        addresses = ["127.0.0.1", "::1"]
    elif ":" in host:
        addresses = [host]
    elif _NUMERIC_HOST.fullmatch(host):
        try:
            addresses = [socket.inet_ntoa(socket.inet_aton(host))]
        except OSError:
            return None
    else:
        return None
    reasons = [refusal(address, allowed) for address in addresses]
    if None in reasons:
        return None
    return (
        f"{host} is {reasons[0]}; deliveries go to public addresses only. To allow it, add its network to "
        "POSTBOTE_WEBHOOK_ALLOW_NETWORKS."
    )


def check_event(pattern: str) -> str:
    """Return a pattern of words with dots between, `*` one word, `#` any; raises ValueError otherwise."""
    if len(pattern) > LONGEST_EVENT or not _PATTERN.fullmatch(pattern):
        raise ValueError(
            f"at most {LONGEST_EVENT} characters: words of letters, digits, _ and - with dots between, "
            "* for one word, # for any number of words; such as response.# or response.text"
        )
    if not any(matches(pattern, event) for event in EVENTS):
        raise ValueError(f"no event matches it; there are {', '.join(EVENTS)}, and response.# is all of them")
    return pattern


def check_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """Return headers that may be added to deliveries; raises ValueError otherwise."""
    if len(headers) > MOST_HEADERS:
        raise ValueError(f"at most {MOST_HEADERS} headers")
    seen: set[str] = set()
    for name, value in headers.items():
        lower = name.lower()
        if not _HEADER_NAME.fullmatch(name):
            raise ValueError("a header's name has 1 to 100 letters, digits and - (RFC 9110, section 5.1)")
        if lower in _RESERVED_HEADERS or lower.startswith(_RESERVED_PREFIXES):
            raise ValueError(f"{name} is written by Postbote itself")
        if lower in seen:
            raise ValueError(f"{name} is there twice")
        if len(value) > LONGEST_HEADER or not _HEADER_VALUE.fullmatch(value) or value != value.strip():
            raise ValueError(f"the value of {name} has at most {LONGEST_HEADER} visible ASCII characters")
        seen.add(lower)
    return dict(headers)
