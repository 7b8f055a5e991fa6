"""Restriction of requests to public network addresses."""

from __future__ import annotations

import ipaddress
import socket

import aiohttp
import yarl
from aiohttp.abc import AbstractResolver, ResolveResult

_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
# The only IPv6 addresses that IANA has assigned for use on the internet.
_GLOBAL_UNICAST = ipaddress.IPv6Network("2000::/3")
# Source: https://www.iana.org/assignments/iana-ipv4-special-registry, and the same with ipv6.
# The blocks that Python's ipaddress knows depend on its version. The list includes blocks that
# serve only other protocols.
_SPECIAL = [
    ipaddress.ip_network(block)
    for block in (
        *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16"),
        *("172.16.0.0/12", "192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16"),
        *("198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4"),
        *("2001::/23", "2001:db8::/32", "3fff::/20"),
        "168.63.129.16/32",  # Azure's wire server, which provides secrets to virtual machines
    )
]


class BlockedAddressError(OSError):
    """An address is not public.

    The message is the same for every address, because the connector merges equal errors of a host.
    """

    def __init__(self) -> None:
        super().__init__(
            "its host has an address that is not public; --allow_private_addresses permits it"
        )


def is_public(address: str) -> bool:
    """Return whether an IP address belongs to the public internet.

    Loopback, private, link-local (the metadata servers of clouds), multicast, reserved and
    unspecified addresses are not public, nor are IPv6 addresses that embed such an IPv4 address.
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


def may_be_public(host: str) -> bool:
    """Return whether a host may have a public address, without asking for the address of a name."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return host.rpartition(".")[2] != "localhost"
    return is_public(host)


def canonical_url(url: yarl.URL) -> yarl.URL:
    """Return a URL with its IPv4 host as a dotted quad.

    The host may be in decimal, octal or hex, such as `http://0x7f.1/`. URLs with any other host are
    returned unchanged.
    """
    host = url.raw_host or ""
    try:
        plain = socket.inet_ntoa(socket.inet_aton(host))
    except (OSError, ValueError):
        return url
    return url if plain == host else url.with_host(plain)


def public_socket(address_info: tuple) -> socket.socket:
    """Return a socket for an address; socket factory for aiohttp's connector.

    The check covers the exact address that the connector is about to connect to.

    Raises:
      BlockedAddressError: The address is not public.
    """
    family, kind, protocol, _, address = address_info
    if not is_public(address[0]):
        raise BlockedAddressError
    return socket.socket(family, kind, protocol)


class PublicResolver(AbstractResolver):
    """Resolves names; raises BlockedAddressError if any address of a name is not public."""

    def __init__(self, resolver: AbstractResolver):
        self._resolver = resolver

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        results = await self._resolver.resolve(host, port, family)
        if not all(is_public(result["host"]) for result in results):
            raise BlockedAddressError
        return results

    async def close(self) -> None:
        await self._resolver.close()


def make_connector(
    allow_private: bool, limit: int, resolver: AbstractResolver
) -> aiohttp.TCPConnector:
    """Return a connector that connects only to public addresses.

    It keeps connections alive and caches resolved names.

    Args:
      allow_private: Whether it may connect to any address.
      limit: Maximum number of simultaneous connections.
      resolver: Resolves host names.
    """
    return aiohttp.TCPConnector(
        limit=limit,
        resolver=resolver if allow_private else PublicResolver(resolver),
        socket_factory=None if allow_private else public_socket,
        ttl_dns_cache=600,
        dns_cache_max_size=10_000,
        # Each idle connection is an open file, and a list may have thousands of hosts.
        keepalive_timeout=5,
    )
