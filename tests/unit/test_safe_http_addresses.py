"""Which addresses are public: our classifier against an independent table of the special ones."""

import random
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.safe_http.addresses import Address, is_private_use, is_public

REGISTRY = {
    # IANA's special-purpose registries and the multicast ones: whether an address is globally reachable.
    # The longest prefix wins. What is marked N/A there (Teredo, 6to4 and its relays) is False here.
    "0.0.0.0/0": True,
    "0.0.0.0/8": False,
    "10.0.0.0/8": False,
    "100.64.0.0/10": False,
    "127.0.0.0/8": False,
    "169.254.0.0/16": False,
    "172.16.0.0/12": False,
    "192.0.0.0/24": False,
    "192.0.0.9/32": True,
    "192.0.0.10/32": True,
    "192.0.2.0/24": False,
    "192.31.196.0/24": True,
    "192.52.193.0/24": True,
    "192.88.99.0/24": False,
    "192.168.0.0/16": False,
    "192.175.48.0/24": True,
    "198.18.0.0/15": False,
    "198.51.100.0/24": False,
    "203.0.113.0/24": False,
    "224.0.0.0/4": False,
    "240.0.0.0/4": False,
    "255.255.255.255/32": False,
    "::/0": False,  # not given out
    "2000::/3": True,
    "::/128": False,
    "::1/128": False,
    "::ffff:0:0/96": False,
    "64:ff9b::/96": True,
    "64:ff9b:1::/48": False,
    "100::/64": False,
    "100:0:0:1::/64": False,
    "2001::/23": False,
    "2001::/32": False,
    "2001:1::1/128": True,
    "2001:1::2/128": True,
    "2001:1::3/128": True,
    "2001:2::/48": False,
    "2001:3::/32": True,
    "2001:4:112::/48": True,
    "2001:10::/28": False,
    "2001:20::/28": True,
    "2001:30::/28": True,
    "2001:db8::/32": False,
    "2002::/16": False,
    "2620:4f:8000::/48": True,
    "3fff::/20": False,
    "5f00::/16": False,
    "fc00::/7": False,
    "fe80::/10": False,
    "fec0::/10": False,
    "ff00::/8": False,
}
STRICTER = ["192.0.0.0/24", "2001::/23", "168.63.129.16/32"]
"""What we refuse though it is reachable: protocol anycasts, and Azure's metadata."""


def registered(address: Address) -> bool:
    """What the registry says of an address."""
    networks = [ip_network(text) for text in REGISTRY]
    within = [network for network in networks if address in network]
    return REGISTRY[str(max(within, key=lambda network: network.prefixlen))]


def expected(address: Address) -> bool:
    if isinstance(address, IPv6Address) and address in ip_network("64:ff9b::/96"):
        return expected(IPv4Address(address.packed[-4:]))
    return registered(address) and not any(address in ip_network(network) for network in STRICTER)


def edges() -> list[Address]:
    """The first and last address of each network, and their neighbours outside."""
    found: set[Address] = set()
    for network in map(ip_network, [*REGISTRY, *STRICTER]):
        first, last = int(network.network_address), int(network.broadcast_address)
        kind = type(network.network_address)
        most = 2**network.max_prefixlen
        found.update(
            kind(n) for n in (first - 1, first, first + 1, last - 1, last, last + 1) if 0 <= n < most
        )
    return sorted(found, key=lambda address: (address.version, int(address)))


@pytest.mark.parametrize("address", edges(), ids=str)
def test_at_the_edge_of_every_special_network_we_agree_with_the_registry(address: Address) -> None:
    assert is_public(address) is expected(address)


@given(st.ip_addresses())
def test_everywhere_we_agree_with_the_registry(address: Address) -> None:
    assert is_public(address) is expected(address)


@given(st.sampled_from(list(REGISTRY)), st.randoms(use_true_random=False))
def test_inside_every_special_network_we_agree_with_the_registry(text: str, chance: random.Random) -> None:
    network = ip_network(text)
    address = network[chance.randrange(network.num_addresses)]

    assert is_public(address) is expected(address)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        *[
            ("10.0.0.1", True),
            ("172.31.0.1", True),
            ("192.168.0.1", True),
            ("100.64.0.1", True),
            ("fd12::1", True),
        ],
        *[("172.32.0.1", False), ("127.0.0.1", False), ("169.254.1.1", False), ("192.0.2.1", False)],
        *[
            ("8.8.8.8", False),
            ("::1", False),
            ("fe80::1", False),
            ("::ffff:10.0.0.1", False),
            ("fec0::1", False),
        ],
    ],
)
def test_private_use_is_what_organisations_number_hosts_with(text: str, *, expected: bool) -> None:
    assert is_private_use(ip_address(text)) is expected
