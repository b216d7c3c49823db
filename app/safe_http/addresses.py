"""Which addresses a stranger may send us to: pure functions of an IP address.

`ipaddress` is not asked alone: in Python 3.11 its `is_global` is true of `::127.0.0.1`, of NAT64 and 6to4
addresses whatever they carry, of 192.0.0.192 and of multicast, and its answers change between releases.
"""

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Final

Address = IPv4Address | IPv6Address

_NOT_PUBLIC_4: Final = tuple(
    map(
        IPv4Network,
        (
            "0.0.0.0/8",  # "this network"; the kernel takes 0.0.0.0 for itself
            "10.0.0.0/8",
            "100.64.0.0/10",  # shared by carriers, and by clouds for their own services
            "127.0.0.0/8",
            "169.254.0.0/16",
            "172.16.0.0/12",
            "192.0.0.0/24",
            "192.0.2.0/24",
            "192.88.99.0/24",  # relays of 6to4, withdrawn
            "192.168.0.0/16",
            "198.18.0.0/15",
            "198.51.100.0/24",
            "203.0.113.0/24",
            "224.0.0.0/4",
            "240.0.0.0/4",
        ),
    )
)
"""IANA's IPv4 special-purpose registry of 2025, and multicast."""
_UNICAST_6: Final = IPv6Network("2000::/3")
"""The only part of IPv6 that IANA gives out for the Internet."""
_NOT_PUBLIC_6: Final = tuple(
    map(
        IPv6Network,
        (
            "2001::/23",  # protocol assignments, Teredo among them
            "2001:db8::/32",
            "2002::/16",  # 6to4
            "3fff::/20",
        ),
    )
)
"""IANA's IPv6 special-purpose registry of 2025, as far as it lies inside `_UNICAST_6`."""
_NAT64: Final = IPv6Network("64:ff9b::/96")
_CARRY_IN_THE_LAST_32_BITS: Final = (
    IPv6Network("::/96"),  # IPv4-compatible
    IPv6Network("::ffff:0:0/96"),  # IPv4-mapped
    IPv6Network("::ffff:0:0:0/96"),  # IPv4-translated
    _NAT64,
    IPv6Network("64:ff9b:1::/48"),  # NAT64 for local use
)
_PRIVATE_USE: Final = (
    IPv4Network("10.0.0.0/8"),
    IPv4Network("100.64.0.0/10"),
    IPv4Network("172.16.0.0/12"),
    IPv4Network("192.168.0.0/16"),
    IPv6Network("fc00::/7"),
)
_BARRED: Final = (
    IPv4Network("169.254.0.0/16"),  # link-local: where nearly every cloud's metadata are
    IPv6Network("fe80::/10"),
    IPv4Network("224.0.0.0/4"),
    IPv6Network("ff00::/8"),
    IPv4Network("255.255.255.255/32"),
    IPv4Network("100.100.100.200/32"),  # Alibaba's metadata
    IPv4Network("168.63.129.16/32"),  # Azure's, a public address by its looks
    IPv4Network("192.0.0.192/32"),  # Oracle's first
    IPv6Network("fd00:c1::a9fe:a9fe/128"),  # Oracle's
    IPv6Network("fd00:ec2::/64"),  # Amazon's, and the credentials of EKS pods
    IPv6Network("fd00:42::42/128"),  # Scaleway's
    IPv6Network("fd20:ce::254/128"),  # Google's
)


def is_public(address: Address) -> bool:
    """Whether anybody on the Internet reaches the same host under this address as we do."""
    if is_barred(address) or not address.is_global:
        return False
    if isinstance(address, IPv4Address):
        return not any(address in network for network in _NOT_PUBLIC_4)
    if address in _NAT64:
        # A network without IPv4 of its own sees all of the old Internet here, so it cannot be refused whole.
        return is_public(_last_32_bits(address))
    return address in _UNICAST_6 and not any(address in network for network in _NOT_PUBLIC_6)


def is_private_use(address: Address) -> bool:
    """Whether organisations number their own hosts with it: RFC 1918, RFC 6598 and RFC 4193, nothing else."""
    return not is_barred(address) and any(address in network for network in _PRIVATE_USE)


def is_barred(address: Address) -> bool:
    """Whether nobody has business there, whatever an operator allows.

    These are the metadata services of the clouds, which hand out credentials, link-local addresses, multicast
    and broadcast; also where an IPv6 address only carries such an IPv4 address.
    """
    return any(found in network for found in (address, *_carried(address)) for network in _BARRED)


def _carried(address: Address) -> tuple[IPv4Address, ...]:
    """Every IPv4 address that some gateway would read out of an IPv6 address."""
    if isinstance(address, IPv4Address):
        return ()
    found = [_last_32_bits(address)] if any(address in it for it in _CARRY_IN_THE_LAST_32_BITS) else []
    if address.sixtofour is not None:
        found.append(address.sixtofour)
    return (*found, *(address.teredo or ()))


def _last_32_bits(address: IPv6Address) -> IPv4Address:
    return IPv4Address(int(address) & 0xFFFF_FFFF)
