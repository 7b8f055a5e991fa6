"""Which network addresses a URL may lead to."""

from __future__ import annotations

import ipaddress
import socket

import aiohttp
import yarl
from aiohttp.abc import AbstractResolver, ResolveResult

_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


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
        if ip.is_site_local:
            return False
    return ip.is_global and not ip.is_multicast and not ip.is_reserved


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
