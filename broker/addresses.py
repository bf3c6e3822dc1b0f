"""Which addresses deliveries may reach: public ones, and those that the operator allows. Pure.

The tables are ours and not Python's `is_private`, whose answers differ between patch releases. They follow
IANA's special-purpose address registries (RFC 6890 and its updates).
"""

from collections.abc import Iterator, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

from broker.settings import Network

Address = IPv4Address | IPv6Address

_V4 = [
    (IPv4Network(network), why)
    for network, why in (
        ("0.0.0.0/32", "the unspecified address"),
        ("0.0.0.0/8", "an address of this network"),
        ("10.0.0.0/8", "a private address"),
        ("100.64.0.0/10", "a carrier's internal address (CGNAT)"),
        ("127.0.0.0/8", "a loopback address"),
        ("168.63.129.16/32", "a cloud provider's internal address"),
        ("169.254.0.0/16", "a link-local address"),
        ("172.16.0.0/12", "a private address"),
        ("192.0.0.0/24", "a reserved address"),
        ("192.0.2.0/24", "a documentation address"),
        ("192.88.99.0/24", "a reserved address"),
        ("192.168.0.0/16", "a private address"),
        ("198.18.0.0/15", "a benchmarking address"),
        ("198.51.100.0/24", "a documentation address"),
        ("203.0.113.0/24", "a documentation address"),
        ("224.0.0.0/4", "a multicast address"),
        ("255.255.255.255/32", "the broadcast address"),
        ("240.0.0.0/4", "a reserved address"),
    )
]

_NAT64 = IPv6Network("64:ff9b::/96")
_SIX_TO_FOUR = IPv6Network("2002::/16")
_TEREDO = IPv6Network("2001::/32")

_V6 = [
    (IPv6Network(network), why)
    for network, why in (
        ("::/128", "the unspecified address"),
        ("::1/128", "a loopback address"),
        ("64:ff9b:1::/48", "a private address"),
        ("2001::/23", "a reserved address"),
        ("2001:db8::/32", "a documentation address"),
        ("3fff::/20", "a documentation address"),
        ("fc00::/7", "a private address"),
        ("fe80::/10", "a link-local address"),
        ("fec0::/10", "a private address"),
        ("ff00::/8", "a multicast address"),
    )
]
#: All that IANA has assigned as global unicast; whatever is outside is reserved.
_V6_GLOBAL = IPv6Network("2000::/3")


def refusal(ip: str, allowed: Sequence[Network]) -> str | None:
    """Say what an address is where deliveries must not reach it ("a private address"); None where they may.

    `ip` is as the resolver gives it, perhaps with a scope (`fe80::1%eth0`). An IPv6 address that stands for
    an IPv4 one (mapped, 6to4, NAT64, Teredo) is judged by that one. `allowed` wins over the tables.
    """
    try:
        address = ip_address(ip.partition("%")[0])
    except ValueError:
        return "not an IP address"
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    if _within(address, allowed):
        return None
    if isinstance(address, IPv4Address):
        return _listed(address, _V4)
    behind = list(_behind(address))
    if not behind:
        return _listed(address, _V6) or (None if address in _V6_GLOBAL else "a reserved address")
    for inner in behind:
        if not _within(inner, allowed) and (why := _listed(inner, _V4)) is not None:
            return f"an IPv6 address that stands for {inner}, {why}"
    return None


def _behind(address: IPv6Address) -> Iterator[IPv4Address]:
    """List the IPv4 addresses that traffic to an IPv6 address ends at."""
    if address in _NAT64:
        yield IPv4Address(int(address) & 0xFFFFFFFF)
    elif address in _SIX_TO_FOUR:
        yield IPv4Address(int(address) >> 80 & 0xFFFFFFFF)
    elif address in _TEREDO:
        # The server, and the client behind it, whose bits are inverted (RFC 4380, section 4).
        yield IPv4Address(int(address) >> 64 & 0xFFFFFFFF)
        yield IPv4Address(~int(address) & 0xFFFFFFFF)


def _within(address: Address, networks: Sequence[Network]) -> bool:
    return any(address in network for network in networks if network.version == address.version)


def _listed(
    address: Address, table: Sequence[tuple[IPv4Network, str]] | Sequence[tuple[IPv6Network, str]]
) -> str | None:
    return next((why for network, why in table if address in network), None)
