"""IP addresses of clients and proxies in one form: IPv4-mapped IPv6 addresses as IPv4."""

from functools import lru_cache
from ipaddress import IPv4Network, IPv6Address, ip_network

MAPPED = 96  # length of the prefix of IPv4-mapped addresses (RFC 4291, 2.5.5.2)
MAX_ADDRESS = 64  # characters; longer text is no address


def unmapped(address: str) -> str:
    """`1.2.3.4` for `::ffff:1.2.3.4`, which a dual-stack socket reports."""
    if ":" not in address or len(address) > MAX_ADDRESS:
        return address
    return _unmapped(address)


@lru_cache(maxsize=10_000)
def _unmapped(address: str) -> str:
    try:
        mapped = IPv6Address(address).ipv4_mapped
    except ValueError:
        return address
    return str(mapped) if mapped else address


def in_both_forms(networks: str) -> str:
    """A comma-separated list of addresses and networks, with the IPv4-mapped form of each added."""
    forms = [form.strip() for form in networks.split(",")]
    return ",".join(dict.fromkeys([*forms, *filter(None, map(_other_form, forms))]))


def _other_form(network: str) -> str | None:
    try:
        parsed = ip_network(network)
    except ValueError:
        return None
    if isinstance(parsed, IPv4Network):
        other, length = f"::ffff:{parsed.network_address}", MAPPED + parsed.prefixlen
    else:
        mapped = parsed.network_address.ipv4_mapped
        if mapped is None or parsed.prefixlen < MAPPED:
            return None
        other, length = str(mapped), parsed.prefixlen - MAPPED
    return f"{other}/{length}" if "/" in network else other
