"""Which addresses deliveries may reach."""

from ipaddress import IPv4Address, IPv6Address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.addresses import refusal

PUBLIC = [
    "1.1.1.1",
    "8.8.8.8",
    "172.15.255.255",
    "172.32.0.1",
    "100.63.255.255",
    "100.128.0.0",
    "169.253.0.1",
    "192.0.1.1",
    "223.255.255.255",
    "2606:4700::1111",
    "2a00:1450:4001::1",
    "::ffff:8.8.8.8",
    "64:ff9b::8.8.8.8",
    "2002:808:808::1",
]
REFUSED = [
    ("0.0.0.0", "unspecified"),
    ("0.1.2.3", "this network"),
    ("10.0.0.1", "private"),
    ("172.16.0.1", "private"),
    ("172.31.255.255", "private"),
    ("192.168.1.1", "private"),
    ("100.64.0.1", "CGNAT"),
    ("100.100.100.200", "CGNAT"),
    ("127.0.0.1", "loopback"),
    ("127.255.255.255", "loopback"),
    ("168.63.129.16", "cloud"),
    ("169.254.169.254", "link-local"),
    ("192.0.0.192", "reserved"),
    ("192.0.2.1", "documentation"),
    ("198.19.255.255", "benchmarking"),
    ("224.0.0.1", "multicast"),
    ("239.255.255.250", "multicast"),
    ("240.0.0.1", "reserved"),
    ("255.255.255.255", "broadcast"),
    ("::", "unspecified"),
    ("::1", "loopback"),
    ("::2", "reserved"),
    ("::127.0.0.1", "reserved"),
    ("::ffff:127.0.0.1", "loopback"),
    ("::ffff:a9fe:a9fe", "link-local"),
    ("fe80::1", "link-local"),
    ("fe80::1%eth0", "link-local"),
    ("fe80::1%", "link-local"),
    ("fc00::1", "private"),
    ("fd00:ec2::254", "private"),
    ("fec0::1", "private"),
    ("ff02::1", "multicast"),
    ("64:ff9b::127.0.0.1", "127.0.0.1, a loopback"),
    ("64:ff9b::a9fe:a9fe", "169.254.169.254, a link-local"),
    ("64:ff9b:1::1", "private"),
    ("2002:7f00:1::", "127.0.0.1, a loopback"),
    ("2002:a00:1::1", "10.0.0.1, a private"),
    ("2001:db8::1", "documentation"),
    ("2001:2::1", "reserved"),
    ("100::1", "reserved"),
    ("5f00::1", "reserved"),
    ("4000::1", "reserved"),
    # Teredo: the client's bits are inverted, so this one is 192.168.0.1 behind the server 8.8.8.8.
    ("2001:0:808:808:0:0:3f57:fffe", "192.168.0.1, a private"),
    ("2001:0:a00:1::f7f7:f7f7", "10.0.0.1, a private"),
    ("localhost", "not an IP address"),
    ("", "not an IP address"),
    ("127.1", "not an IP address"),
    ("0x7f000001", "not an IP address"),
    ("1.2.3.4.", "not an IP address"),
]


@pytest.mark.parametrize("ip", PUBLIC)
def test_public_addresses_are_reached(ip: str) -> None:
    assert refusal(ip, ()) is None


@pytest.mark.parametrize(("ip", "why"), REFUSED)
def test_others_are_refused_and_named(ip: str, why: str) -> None:
    assert why in (refusal(ip, ()) or "")


@pytest.mark.parametrize(
    ("network", "ip", "reached"),
    [
        ("127.0.0.0/8", "127.0.0.1", True),
        ("127.0.0.0/8", "::ffff:127.0.0.1", True),
        ("127.0.0.0/8", "64:ff9b::127.0.0.1", True),
        ("127.0.0.0/8", "::1", False),
        ("127.0.0.0/8", "0.0.0.0", False),
        ("::1/128", "::1", True),
        ("::1/128", "127.0.0.1", False),
        ("10.1.0.0/16", "10.1.255.255", True),
        ("10.1.0.0/16", "10.2.0.1", False),
        ("fe80::/10", "fe80::1%eth0", True),
        ("0.0.0.0/0", "::1", False),
        ("::/0", "fd00::1", True),
        ("::/0", "10.0.0.1", False),
        # One of the two addresses behind a Teredo one is not allowed.
        ("10.0.0.0/8", "2001:0:a00:1::3f57:fffe", False),
    ],
)
def test_allowed_networks_are_reached_and_no_more(network: str, ip: str, reached: bool) -> None:
    assert (refusal(ip, [ip_network(network)]) is None) is reached


@given(st.integers(0, 2**32 - 1))
def test_an_ipv4_address_is_judged_alike_however_it_is_wrapped(number: int) -> None:
    plain = IPv4Address(number)
    why = refusal(str(plain), ())
    assert refusal(str(IPv6Address(0xFFFF << 32 | number)), ()) == why
    for wrapped in (0x64FF9B << 96 | number, 0x2002 << 112 | number << 80 | 1):
        assert (refusal(str(IPv6Address(wrapped)), ()) is None) is (why is None)


@given(st.ip_addresses())
def test_what_python_calls_private_or_reserved_is_never_reached(address: IPv4Address | IPv6Address) -> None:
    if isinstance(address, IPv6Address) and address.ipv4_mapped:
        return
    if address.is_loopback or address.is_link_local or address.is_multicast or address.is_unspecified:
        assert refusal(str(address), ()) is not None
    if address.is_private and refusal(str(address), ()) is None:
        # Addresses that stand for public IPv4 ones are private to Python.
        assert str(address).startswith(("2002:", "2001:0:", "2001::", "64:ff9b::"))


@given(st.text(max_size=60))
def test_rubbish_is_refused(text: str) -> None:
    try:
        IPv4Address(text)
    except ValueError:
        if ":" not in text:
            assert (
                refusal(text, [ip_network("0.0.0.0/0"), ip_network("::/0")]) == "not an IP address"
                or "%" in text
            )
