"""A webhook's URL, taken apart without changing it: what is asked for goes out as it was registered. Pure.

URLs are often signed, or carry encoded names: a parser that decodes, sorts or shortens them breaks both. So the path
and the query are bytes that nobody here understands. Only what is not ASCII is escaped, as UTF-8 (RFC 3987, section
3.1); the host goes to the name service by IDNA.
"""

import re
from typing import NamedTuple

from yarl import URL

_URL = re.compile(r"(?i:(https?)://)([^/?#]*)([^#]*)", re.DOTALL)
#: What would end the line of a request, or a word of it: blanks, control characters, the ends of lines of Unicode.
UNSAFE = re.compile(r"[\x00-\x20\x7f-\xa0\u2028\u2029\ud800-\udfff]")
#: What IDNA makes of some letters is a blank, or would end the host.
_HOST = re.compile(r"[^\x00-\x20/?#@\\\x7f-\U0010ffff]+")
_NOT_ASCII = re.compile(r"[^\x00-\x7f]+")


class WebhookUrl(NamedTuple):
    """What is connected to, and what is asked for there."""

    tls: bool
    #: In the form for the name service; an IPv6 address without its brackets.
    host: str
    port: int
    #: The value of the header `Host`.
    host_header: str
    #: The path and the query, as they stand in the request line.
    target: str

    @classmethod
    def of(cls, url: str) -> "WebhookUrl":
        """Take a URL apart; raises ValueError where nothing can be posted to it."""
        parts = _URL.fullmatch(url)
        if parts is None or UNSAFE.search(url):
            raise ValueError(
                "not a URL of http or https, or with blanks, control characters or a fragment (#…)"
            )
        scheme, authority, target = parts[1].lower(), parts[2], parts[3]
        try:
            at = URL(f"{scheme}://{authority}")
            host, port = at.raw_host, at.port
        except (ValueError, TypeError) as error:
            raise ValueError(f"not a URL: {error}") from None
        if not host or not _HOST.fullmatch(host) or not port:
            raise ValueError("it names no host, or a port that is not 1 to 65535")
        if not target.startswith("/"):
            target = "/" + target
        return cls(
            scheme == "https", host, port, at.host_port_subcomponent or host, _NOT_ASCII.sub(_escaped, target)
        )


def _escaped(found: re.Match[str]) -> str:
    return "".join(f"%{byte:02X}" for byte in found[0].encode())
