"""Which network addresses a URL may lead to."""

from __future__ import annotations

import ipaddress
import socket

import aiohttp
import yarl
from aiohttp.abc import AbstractResolver, ResolveResult

_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
# The only IPv6 addresses that IANA has assigned for use in the internet.
_GLOBAL_UNICAST = ipaddress.IPv6Network("2000::/3")
# From https://www.iana.org/assignments/iana-ipv4-special-registry, and the same with ipv6; what
# Python's ipaddress knows of them depends on its version. Includes blocks where only other
# protocols are served.
_SPECIAL = [
    ipaddress.ip_network(block)
    for block in (
        *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16"),
        *("172.16.0.0/12", "192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16"),
        *("198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4"),
        *("2001::/23", "2001:db8::/32", "3fff::/20"),
        "168.63.129.16/32",  # Azure's wire server, which machines there ask for their secrets
    )
]


class BlockedAddressError(OSError):
    """An address is not public. Says the same whatever the address, as the connector merges equal errors of one host."""

    def __init__(self) -> None:
        super().__init__("it leads to an address that is not public; --allow_private_addresses lets it")


def is_public(address: str) -> bool:
    """Whether an IP address is one of the public internet.

    Loopback, private, link-local (where clouds keep their metadata), multicast, reserved and unspecified ones are not,
    nor are IPv6 addresses that carry such an IPv4 one inside.
    """
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        inner = ip.ipv4_mapped or ip.sixtofour or (ip.teredo[1] if ip.teredo else None)
        if inner is None and (ip in _NAT64 or int(ip) >> 32 == 0):
            inner = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        if inner is not None:
            return is_public(str(inner))
        if ip not in _GLOBAL_UNICAST:
            return False
    return not any(ip in network for network in _SPECIAL)


def canonical_url(url: yarl.URL) -> yarl.URL:
    """Spells an IPv4 host as a dotted quad where it is in decimal, octal or hex, as `http://0x7f.1/`."""
    host = url.raw_host or ""
    try:
        plain = socket.inet_ntoa(socket.inet_aton(host))
    except (OSError, ValueError):
        return url
    return url if plain == host else url.with_host(plain)


def public_socket(address_info: tuple) -> socket.socket:
    """A socket factory for aiohttp's connector: refuses the very address that is about to be connected to."""
    family, kind, protocol, _, address = address_info
    if not is_public(address[0]):
        raise BlockedAddressError
    return socket.socket(family, kind, protocol)


class PublicResolver(AbstractResolver):
    """Refuses a name if only one of its addresses is not public."""

    def __init__(self, resolver: AbstractResolver):
        self._resolver = resolver

    async def resolve(self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC) -> list[ResolveResult]:
        results = await self._resolver.resolve(host, port, family)
        if not all(is_public(result["host"]) for result in results):
            raise BlockedAddressError
        return results

    async def close(self) -> None:
        await self._resolver.close()


def make_connector(allow_private: bool, limit: int, resolver: AbstractResolver) -> aiohttp.TCPConnector:
    """A connector that keeps connections alive, caches names, and connects to public addresses only.

    Args:
      allow_private: Lets it connect anywhere.
      limit: Connections at a time.
      resolver: Answers for names.
    """
    return aiohttp.TCPConnector(
        limit=limit,
        resolver=resolver if allow_private else PublicResolver(resolver),
        socket_factory=None if allow_private else public_socket,
        ttl_dns_cache=600,
        dns_cache_max_size=10_000,
        # Idle connections are open files, and a list may have thousands of hosts.
        keepalive_timeout=5,
    )
