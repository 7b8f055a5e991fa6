"""Tests that URLs are requested as spelled, and that any text is either a URL or refused."""

from __future__ import annotations

import pytest
import yarl
from hypothesis import example, given, settings
from hypothesis import strategies as st

from beam_pipeline.elements import ImageRef
from beam_pipeline.fetching.http_urls import UrlError, check_url, join, parse

BASE = parse("http://a.example/b%20c//d;e?f=1")


@pytest.mark.parametrize(
    "target",
    [
        *("/", "/%7Euser/1.jpg", "/~user/1.jpg", "/%41?X=%2F%2f%3D&Y=a+b;c", "/1.jpg?", "/?"),
        *("/a//b", "/100%.jpg", "/%zz", "/a/../b/./c", "/..;/x", "/[1].jpg", '/"<>\\^`{|}'),
        "/1.jpg?u=http://b/?c",
    ],
)
def test_ascii_stays_as_it_is_spelled(target):
    url = parse(f"http://a.example:8080{target}")
    assert url.raw_path_qs == target
    assert str(url) == f"http://a.example:8080{target}"
    assert join(BASE, f"//a.example:8080{target}") == url


@pytest.mark.parametrize(
    ("spelled", "requested"),
    [
        ("/a b.jpg", "/a%20b.jpg"),
        ("/é.jpg?ü=ß", "/%C3%A9.jpg?%C3%BC=%C3%9F"),
        ("/\udcff.jpg", "/%FF.jpg"),  # a header byte that is not UTF-8
        ("/a\0\x1f\x7f\x85b", "/a%00%1F%7F%C2%85b"),
        ("/a\r\n\tb", "/ab"),
        ("/a#b?c", "/a"),
        ("", "/"),
        ("?a=1", "/?a=1"),
    ],
)
def test_what_cannot_be_sent_is_quoted_or_removed(spelled, requested):
    assert parse(f"  http://a.example{spelled} ").raw_path_qs == requested


@pytest.mark.parametrize(
    ("reference", "expected"),
    [
        ("http://x.example/%7E/../y", "http://x.example/%7E/../y"),
        ("//x.example?y", "http://x.example/?y"),
        ("/%7E/../y?", "http://a.example/%7E/../y?"),
        ("x%2F.jpg?y", "http://a.example/b%20c//x%2F.jpg?y"),
        ("./../x/./y/..", "http://a.example/b%20c/x/"),
        ("../../../../x", "http://a.example/x"),
        ("?y", "http://a.example/b%20c//d;e?y"),
        ("", "http://a.example/b%20c//d;e?f=1"),
        ("#y", "http://a.example/b%20c//d;e?f=1"),
        ("/ü", "http://a.example/%C3%BC"),
    ],
)
def test_references(reference, expected):
    assert str(join(BASE, reference)) == expected


def test_a_reference_keeps_user_and_port():
    assert str(join(parse("https://u:p@a.example:81/x"), "y")) == "https://u:p@a.example:81/y"


IMPOSSIBLE = [
    *("xn--a.example", "xn--a-ecp.ru", "xn--.example", "xn--zz--.example", "XN--0000h.example"),
    *("a..b", ".", "-\0", "a b", "a%41", "a,b", "ü,", "ﬁ_\u200b", "\udcff", "x" * 64, "x." * 130),
    *("[v1.a:b]", "[::1", "::1]", "[::g]", "[fe80::1%\x01]", "u@", "@", "[79]x@", "a\\b"),
    *("a:99999", "a:-1", "a:x", "a:1:2", "[::1]:x", "[::1]1"),
]

POSSIBLE = {
    "xn--mnchen-3ya.example": "xn--mnchen-3ya.example",
    "münchen.example": "xn--mnchen-3ya.example",
    "xn--ls8h.example": "xn--ls8h.example",
    "A_b.Example.": "a_b.example.",
    "-a-.example": "-a-.example",
    "x" * 63: "x" * 63,
    "[::1]": "::1",
    "[fe80::1%25eth0]": "fe80::1%25eth0",
    "0x7f.1": "127.0.0.1",
}


@pytest.mark.parametrize("host", IMPOSSIBLE)
@pytest.mark.parametrize("form", ["http://{}/1.jpg", "https://user:word@{}?x"])
def test_impossible_hosts(host, form):
    text = form.format(host)
    failure = check_url(ImageRef("", text))
    assert failure is not None
    assert (failure.stage, failure.reason) == ("read", "invalid_url")
    assert failure.detail
    with pytest.raises(UrlError) as caught:
        join(BASE, text)
    assert caught.value.reason == "invalid_url"


@pytest.mark.parametrize(("host", "name"), POSSIBLE.items())
def test_possible_hosts(host, name):
    assert parse(f"http://{host}:80/1.jpg").raw_host == name


ANY = st.characters(exclude_categories=())  # including halves of surrogate pairs
BRACKETED = st.one_of(st.ip_addresses(v=6), st.text(max_size=5))
HOST = st.one_of(
    st.text(ANY, max_size=12),
    st.text("0123456789abcdefxX.:[]@%-_\\\0\r\xad\u200b①。\ud800\udcff", max_size=14),
    st.builds("xn--{}.example".format, st.text("abz019-", max_size=8)),
    st.ip_addresses().map(str),
    st.builds("[{}]{}".format, BRACKETED, st.text(max_size=3)),
    st.builds("{}@a:{}".format, st.text(ANY, max_size=4), st.text("0189-+_ ٣", max_size=6)),
    st.integers(60, 70).map(lambda length: "x" * length),
    st.integers(120, 130).map(lambda length: "x." * length),
)
SCHEME = st.sampled_from(["http:", "https:", "HTTP:", "ftp:", "", "1:", ":"])
SLASHES = st.sampled_from(["//", "//", "//", "/", "///", ""])
TEXT = st.one_of(
    st.text(ANY, max_size=20),
    st.builds("{}{}{}{}".format, SCHEME, SLASHES, HOST, st.text(ANY, max_size=8)),
)


def check_requestable(url: yarl.URL) -> None:
    """Do what the HTTP client and the sockets do with a URL, up to the network."""
    assert url.scheme in ("http", "https")
    assert url.raw_host and url.host and url.raw_host.encode("idna")
    assert url.port is not None and 0 <= url.port < 2**16
    assert all("!" <= character <= "~" for character in url.raw_path_qs)
    assert url.raw_path_qs.startswith("/")
    assert str(url).isascii()
    assert parse(str(url)) == url


@settings(max_examples=1000, deadline=None)
@given(TEXT)
@example("http://[79]x@/")
@example("http://xn--zz--.example/")
def test_a_url_is_requestable_or_refused(text):
    failure = check_url(ImageRef("", text))
    if failure is None:
        check_requestable(parse(text))
    else:
        assert failure.reason in ("invalid_url", "unsupported_scheme")
        assert failure.detail.encode()


@settings(max_examples=1000, deadline=None)
@given(TEXT, TEXT)
def test_a_reference_is_requestable_or_refused(first, second):
    url = BASE
    for reference in (first, second):
        try:
            url = join(url, reference)
        except UrlError as error:
            assert error.reason in ("invalid_url", "unsupported_scheme")
            assert str(error).encode()
        else:
            check_requestable(url)


PRINTABLE = st.characters(min_codepoint=0x21, max_codepoint=0x7E, exclude_characters="#")
TARGET = st.text(PRINTABLE)


@given(TARGET)
def test_every_ascii_target_stays_as_it_is_spelled(target):
    assert parse(f"http://a.example/{target}").raw_path_qs == f"/{target}"
    assert join(BASE, f"https://a.example/{target}").raw_path_qs == f"/{target}"


@pytest.mark.parametrize(
    "url", ["http://u:s3cr3t@xn--a/b", "http://u:s3cr3t@a:99999999/", "http://u:s3cr3t@[::/b"]
)
def test_an_error_names_no_credentials(url):
    with pytest.raises(UrlError) as caught:
        parse(url)
    assert "s3cr3t" not in str(caught.value)
