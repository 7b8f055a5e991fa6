"""Tests of which addresses are public, in every spelling."""

import asyncio
import ipaddress
import socket

import pytest
import yarl
from aiohttp.abc import AbstractResolver, ResolveResult
from hypothesis import example, given, settings
from hypothesis import strategies as st

from beam_pipeline.fetching.public_addresses import (
    BlockedAddressError,
    PublicResolver,
    canonical_url,
    is_public,
    make_connector,
    public_socket,
)

PUBLIC = [
    *(
        "8.8.8.8",
        "1.1.1.1",
        "9.255.255.255",
        "11.0.0.0",
        "100.63.255.255",
        "100.128.0.0",
        "126.255.255.255",
        "128.0.0.1",
    ),
    *(
        "169.253.255.255",
        "169.255.0.0",
        "172.15.255.255",
        "172.32.0.0",
        "192.167.255.255",
        "192.169.0.0",
        "223.255.255.254",
    ),
    *("2001:4860:4860::8888", "2606:4700:4700::1111", "2a00:1450:4001::200e"),
    *("::ffff:8.8.8.8", "2002:808:808::1", "64:ff9b::8.8.8.8"),
]

NOT_PUBLIC = [
    # Loopback and unspecified.
    *("127.0.0.1", "127.255.255.254", "0.0.0.0", "0.1.2.3", "::1", "::"),
    # Private.
    *(
        "10.0.0.0",
        "10.255.255.255",
        "172.16.0.1",
        "172.31.255.255",
        "192.168.0.1",
        "192.168.255.255",
    ),
    *("fc00::1", "fd00::1", "fdff:ffff::1", "fd00:ec2::254", "fec0::1", "feff::1"),
    # Link-local, where clouds serve their metadata.
    *("169.254.169.254", "169.254.0.1", "169.254.255.255", "fe80::1", "fe80::1%eth0", "febf::1"),
    # Carrier-grade NAT.
    *("100.64.0.0", "100.100.100.200", "100.127.255.255"),
    # Multicast, broadcast and reserved.
    *(
        "224.0.0.1",
        "233.252.0.1",
        "239.255.255.255",
        "240.0.0.1",
        "255.255.255.255",
        "ff02::1",
        "ff0e::1",
        "4000::1",
        "100::1",
    ),
    # Protocol assignments, benchmarks and documentation.
    *(
        "192.0.0.1",
        "192.0.2.1",
        "198.18.0.1",
        "198.19.255.255",
        "198.51.100.1",
        "203.0.113.1",
        "2001:db8::1",
        "2001:2::1",
    ),
    # IPv4 inside IPv6: mapped, compatible, translated, 6to4, NAT64 and Teredo.
    *(
        "::ffff:127.0.0.1",
        "::ffff:10.0.0.1",
        "::ffff:169.254.169.254",
        "::ffff:100.64.0.1",
        "::ffff:0.0.0.0",
    ),
    *("::127.0.0.1", "::10.0.0.1", "::169.254.169.254", "::ffff:0:127.0.0.1"),
    *("2002:7f00:1::1", "2002:a00:1::", "2002:a9fe:a9fe::", "2002:6440:1::", "2002:c0a8:1::1"),
    *(
        "64:ff9b::127.0.0.1",
        "64:ff9b::10.0.0.1",
        "64:ff9b::169.254.169.254",
        "64:ff9b::100.64.0.1",
        "64:ff9b:1::a00:1",
    ),
    *("2001:0:808:808::f5ff:fffe", "2001:0:808:808::80ff:fffe", "2001:0:808:808::5601:5601"),
]

# IANA's registries of special-purpose addresses, as of October 2025: blocks that are not globally
# reachable, or no longer are, and those for protocols and identifiers, where no web server is.
SPECIAL_BLOCKS = [
    *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16"),
    *("172.16.0.0/12", "192.0.0.0/24", "192.0.0.0/29", "192.0.0.8/32", "192.0.0.9/32"),
    *("192.0.0.10/32", "192.0.0.170/31", "192.0.2.0/24", "192.88.99.0/24", "192.88.99.2/32"),
    *("192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4"),
    *("240.0.0.0/4", "255.255.255.255/32", "::/128", "::1/128", "64:ff9b:1::/48", "100::/64"),
    *("100:0:0:1::/64", "2001:1::1/128", "2001:1::2/128", "2001:1::3/128", "2001:2::/48"),
    *("2001:3::/32", "2001:4:112::/48", "2001:5::/32", "2001:10::/28", "2001:20::/28"),
    *("2001:30::/28", "2001:100::/24", "2001:db8::/32", "3fff::/20", "5f00::/16"),
    *("fc00::/7", "fe80::/10", "fec0::/10", "ff00::/8"),
    *("168.63.129.16/32", "192.0.0.192/32"),  # metadata servers of Azure and Oracle
]

# Their neighbours, and the blocks that the registries list as globally reachable.
PUBLIC_BLOCKS = [
    *("192.0.1.0/24", "192.88.98.0/24", "192.88.100.0/24", "168.63.129.15/32", "168.63.129.17/32"),
    *("192.31.196.0/24", "192.52.193.0/24", "192.175.48.0/24", "198.17.0.0/16", "198.20.0.0/16"),
    *("2001:200::/23", "2001:db7::/32", "2001:db9::/32", "2620:4f:8000::/48", "3ffe::/16"),
]


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses(address):
    assert is_public(address)


@pytest.mark.parametrize("address", NOT_PUBLIC)
def test_addresses_that_are_not_public(address):
    assert not is_public(address)


@pytest.mark.parametrize("block", SPECIAL_BLOCKS)
def test_blocks_that_are_not_public(block):
    network = ipaddress.ip_network(block)
    assert not is_public(str(network[0]))
    assert not is_public(str(network[-1]))


@pytest.mark.parametrize("block", PUBLIC_BLOCKS)
def test_blocks_that_are_public(block):
    network = ipaddress.ip_network(block)
    assert is_public(str(network[0]))
    assert is_public(str(network[-1]))


@given(st.ip_addresses())
def test_every_address_is_public_or_not(address):
    assert is_public(str(address)) in (True, False)


@settings(max_examples=500)
@given(st.one_of(st.ip_addresses(v=4), st.ip_addresses(network="2000::/3")))
def test_what_python_calls_private_is_not_public(address):
    carries_another = address.version == 6 and (address.sixtofour or address.teredo)
    if is_public(str(address)) and not carries_another:
        assert address.is_global and not address.is_multicast and not address.is_reserved


@settings(max_examples=500)
@given(
    st.one_of(
        st.ip_addresses(v=4),
        st.sampled_from([a for a in (*PUBLIC, *NOT_PUBLIC) if ":" not in a]).map(
            ipaddress.IPv4Address
        ),
    )
)
def test_an_address_inside_another_is_as_public_as_alone(address):
    number, expected = int(address), is_public(str(address))
    assert is_public(f"::ffff:{address}") is expected
    assert is_public(f"64:ff9b::{address}") is expected
    assert is_public(str(ipaddress.IPv6Address(0x2002 << 112 | number << 80 | 1))) is expected
    # A Teredo address contains the client's address with its bits inverted.
    assert (
        is_public(
            str(ipaddress.IPv6Address(0x20010000 << 96 | 0x08080808 << 64 | number ^ 0xFFFFFFFF))
        )
        is expected
    )


@pytest.mark.parametrize(
    ("spelled", "host"),
    [
        *(
            (spelled, "127.0.0.1")
            for spelled in (
                "2130706433",
                "0x7f000001",
                "0x7F.1",
                "0177.0.0.1",
                "017700000001",
                "127.1",
            )
        ),
        *(
            (spelled, "127.0.0.1")
            for spelled in ("127.0.1", "0x7f.0.0.0x1", "127.0.0.1", "１２７.0.0.1", "127。0。0。1")
        ),
        *(
            ("10.1", "10.0.0.1"),
            ("0", "0.0.0.0"),
            ("2852039166", "169.254.169.254"),
            ("0xa9fea9fe", "169.254.169.254"),
        ),
        *(
            ("0251.0376.0251.0376", "169.254.169.254"),
            ("8.8.8.8", "8.8.8.8"),
            ("010.8.8.8", "8.8.8.8"),
        ),
    ],
)
def test_every_spelling_of_an_ipv4_address_becomes_the_usual_one(spelled, host):
    url = canonical_url(yarl.URL(f"http://user:word@{spelled}:8080/a%20b?c=1,2&d#e"))
    assert str(url) == f"http://user:word@{host}:8080/a%20b?c=1,2&d#e"
    assert canonical_url(yarl.URL(f"https://{spelled}/")) == yarl.URL(f"https://{host}/")


@pytest.mark.parametrize(
    "url",
    [
        *(
            "http://example.com/1.jpg",
            "http://127.0.0.1.example.com/",
            "http://1.2.3.4.5/",
            "http://256.1.1.1/",
            "http://4294967296/",
        ),
        *(
            "http://08.1.1.1/",
            "http://[::1]:80/",
            "http://[::ffff:127.0.0.1]/",
            "http://mün.example/",
            "http://a_b/",
            "/1.jpg",
            "",
        ),
    ],
)
def test_other_urls_stay_as_they_are(url):
    assert canonical_url(yarl.URL(url)) == yarl.URL(url)


@given(st.ip_addresses(v=4))
def test_no_spelling_of_an_address_leads_elsewhere(address):
    number = int(address)
    first, rest = number >> 24, number & 0xFFFFFF
    for host in (
        str(address),
        str(number),
        hex(number),
        f"0{number:o}",
        f"{first}.{rest}",
        f"0x{first:x}.0{rest:o}",
    ):
        assert canonical_url(yarl.URL(f"http://{host}/1.jpg")).host == str(address)


@settings(max_examples=500, deadline=None)
@given(st.one_of(st.text(), st.text("0123456789abcdefxX.-_%\0\xad\u200b①。 ", min_size=1)))
@example("127.1\0")
@example("a\0b.example")
def test_canonical_url_takes_any_url_that_there_is(host):
    try:
        url = yarl.URL(f"http://{host}/1.jpg")
        assert url.host is None or url.raw_host
    except (ValueError, IndexError):
        return  # not a URL: nothing to spell
    assert canonical_url(url).path == url.path


@pytest.mark.parametrize(
    "address", ["127.0.0.1", "169.254.169.254", "::1", "::ffff:10.0.0.1", "fe80::1"]
)
def test_no_socket_is_made_for_an_address_that_is_not_public(address):
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with pytest.raises(BlockedAddressError, match="not public"):
        public_socket((family, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (address, 80)))


@pytest.mark.parametrize("address", ["8.8.8.8", "2606:4700:4700::1111"])
def test_a_socket_is_made_for_a_public_address(address):
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with public_socket((family, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (address, 80))) as made:
        assert (made.family, made.type) == (family, socket.SOCK_STREAM)


class Table(AbstractResolver):
    """A resolver that answers every name with the same addresses."""

    def __init__(self, *addresses: str):
        self.addresses, self.closed = addresses, False

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        return [
            ResolveResult(hostname=host, host=address, port=port, family=family, proto=0, flags=0)
            for address in self.addresses
        ]

    async def close(self) -> None:
        self.closed = True


def test_a_name_with_public_addresses_is_resolved():
    results = asyncio.run(PublicResolver(Table("8.8.8.8", "1.1.1.1")).resolve("a.example", 80))
    assert [result["host"] for result in results] == ["8.8.8.8", "1.1.1.1"]


@pytest.mark.parametrize(
    "addresses", [["127.0.0.1"], ["8.8.8.8", "10.0.0.1"], ["fd00::1", "8.8.8.8"]]
)
def test_a_name_with_one_address_that_is_not_public_is_refused(addresses):
    with pytest.raises(BlockedAddressError):
        asyncio.run(PublicResolver(Table(*addresses)).resolve("a.example", 80))


@pytest.mark.parametrize("allow_private", [False, True])
def test_a_connector_connects_to_private_addresses_only_if_it_may(allow_private):
    async def resolve() -> list[str]:
        connector = make_connector(allow_private, 1, Table("127.0.0.1"))
        try:
            return [result["host"] for result in await connector._resolve_host("a.example", 80)]
        finally:
            await connector.close()

    if allow_private:
        assert asyncio.run(resolve()) == ["127.0.0.1"]
    else:
        with pytest.raises(BlockedAddressError):
            asyncio.run(resolve())


def test_a_resolver_is_closed_with_the_one_around_it():
    table = Table()
    asyncio.run(PublicResolver(table).close())
    assert table.closed
