"""URLs of servers: refuse one that could be read in two ways, and show one without what is secret in it. Pure."""

import re
from collections.abc import Sequence
from urllib.parse import parse_qsl

_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+(%25[\w.-]+)?\]|[^\s:\[\]]*)(?::([0-9]{1,5}))?")
_SECRET_PARAMETERS = ("password", "sslpassword")


def check_amqp_url(url: str) -> str:
    """Return an `amqp://` or `amqps://` URL; raises ValueError, which never repeats it."""
    _check(url, ("amqp", "amqps"))
    _, hosts, _ = _split(url)
    if not hosts or "," in hosts:
        raise ValueError("must name one host: amqp://user:password@host:5672/")
    for name, value in parse_qsl(_query(url)):
        if name in ("heartbeat", "timeout") and not value.isdecimal():
            raise ValueError(f"the parameter {name} must be a number of seconds")
    return url


def check_database_url(url: str) -> str:
    """Return a `postgresql://` or `sqlite:///` URL; raises ValueError, which never repeats it."""
    if url.startswith("sqlite:///"):
        if "?" in url:
            raise ValueError("a sqlite:/// URL is a path and takes no parameters")
        if url == "sqlite:///:memory:":
            raise ValueError("a sqlite:/// URL names a file; leave it unset for one in the data directory")
        return url
    if not url.startswith(("postgresql://", "postgres://")):
        raise ValueError("must begin with postgresql:// or sqlite:///")
    _check(url, ("postgresql", "postgres"))
    return url


def shown(url: str) -> str:
    """Write a URL for people: without password and parameters, for any of them may be secret."""
    scheme, separator, rest = url.partition("://")
    if not separator:
        return "(no URL)"
    if scheme == "sqlite":
        return url
    # Up to the last @, since a password that is not escaped may hold any character.
    user, at, where = rest.rpartition("@")
    if re.search(r"[/?#]", user):
        return f"{scheme}://…"
    return f"{scheme}://{user.partition(':')[0]}{at}{re.split('[?#]', where)[0]}"


def hosts_apart(url: str) -> Sequence[str]:
    """Return a URL for each host of `…@h1:5432,h2:5432/…`, in their order."""
    user, hosts, after = _split(url)
    scheme = url.partition("://")[0]
    return [f"{scheme}://{user}{host}{after}" for host in hosts.split(",")]


def passwords(url: str) -> list[str]:
    """Return what is secret in a URL, as it is written there."""
    user, _, _ = _split(url)
    password = user.removesuffix("@").partition(":")[2]
    found = [value for name, value in parse_qsl(_query(url)) if name in _SECRET_PARAMETERS]
    return [password, *found] if password else found


def _check(url: str, schemes: Sequence[str]) -> None:
    scheme = url.partition("://")[0]
    if "://" not in url or scheme not in schemes:
        raise ValueError("must begin with " + " or ".join(f"{each}://" for each in schemes))
    if any(letter.isspace() or not letter.isprintable() for letter in url):
        raise ValueError("holds a blank or a control character; write it percent-encoded, a blank as %20")
    user, hosts, after = _split(url)
    if re.search(r"[\[\]\\]", user):
        raise ValueError("a [ ] or \\ in the password must be written as %5B, %5D or %5C")
    # A password that is not escaped ends at its first /, ? or #, and its rest stands behind an @ there.
    if "@" in after or "#" in after:
        raise ValueError("a / ? # or @ in the password must be written as %2F, %3F, %23 or %40")
    for host in hosts.split(","):
        found = _HOST.fullmatch(host)
        if found is None or int(found[3] or 0) > 65_535:
            raise ValueError(
                "must name a host and a port from 0 to 65535, such as host:5672, an IPv6 address in brackets; "
                "a : / ? # or @ in the password must be percent-encoded"
            )


def _split(url: str) -> tuple[str, str, str]:
    """Return the user with its @, the hosts, and what comes after them."""
    rest = url.partition("://")[2]
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    user, at, hosts = authority.rpartition("@")
    return user + at, hosts, rest[len(authority) :]


def _query(url: str) -> str:
    return url.partition("?")[2].partition("#")[0]
