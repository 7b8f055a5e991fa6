"""Tests of fetching images over HTTP: retries, redirects, limits, and blocked addresses."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import errno
import gzip
import json
import os
import re
import socket
import ssl
import time
from collections.abc import Iterator
from urllib.parse import quote

import aiohttp.connector
import pytest
import trustme
import yarl
from hypothesis import given, settings
from hypothesis import strategies as st
from origin import Origin, image, peak
from web import Names, fetch_all, fetch_one, open_client, summarize

from beam_pipeline.config import BREAKER_FAILURES, BREAKER_SPACING, MAX_REDIRECTS
from beam_pipeline.elements import EncodedImage, Failure, ImageRef
from beam_pipeline.fetching import circuit_breaker, http_client, public_addresses
from beam_pipeline.fetching.pace import Pace
from beam_pipeline.fetching.web_client import Bundle, WebClient

REASONS = re.compile(
    "blocked_address|dns|connect|tls|timeout|http_[0-9]{1,3}|too_many_redirects|too_large|empty|connection_lost"
    "|invalid_url|unsupported_scheme"  # of a redirect
)


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(http_client, "BACKOFF", 0.001)


@pytest.fixture
def closed_port() -> Iterator[int]:
    """Yield a port that nothing listens on and that no other process can bind."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()[1]


@pytest.fixture
def free_port() -> int:
    """Return a port that nothing listens on, for an origin to listen on later."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        return bound.getsockname()[1]


@pytest.fixture
def loopback_is_public(monkeypatch):
    """Make the origin's address, and no other of this machine, count as public."""
    is_public = public_addresses.is_public
    monkeypatch.setattr(
        public_addresses, "is_public", lambda address: address == "127.0.0.1" or is_public(address)
    )


class TestImages:
    def test_comes_as_it_is(self, origin):
        outcome = fetch_one(origin.url("good/x.jpg"), user_agent="tests/1.0")
        assert isinstance(outcome, EncodedImage)
        assert (outcome.data, outcome.attempts, outcome.final_url) == (
            image("x.jpg"),
            1,
            origin.url("good/x.jpg"),
        )
        headers = origin.requests[0].headers
        assert headers["user-agent"] == "tests/1.0"
        assert headers["accept-encoding"] == "identity"

    @pytest.mark.parametrize(
        "path",
        [
            "x.png",
            "x.gif",
            "x.webp",
            "x.bmp",
            "x.tiff",
            "sized/640/480/x.jpg",
            "type/text%2Fhtml/x.jpg",
            "type/;;;/x.jpg",
            "gzip/x.jpg",
            "x-gzip/x.jpg",
            "chunked/x.jpg",
            "large-unannounced/1/x.jpg",
            "huge-header/8000/x.jpg",
            "delay/0.1/x.jpg",
            "robots/x.jpg?tag=all&tag=bot:%20noindex",
        ],
    )
    def test_comes_however_it_is_sent(self, origin, path):
        outcome = fetch_one(origin.url(path))
        name = path.rpartition("/")[2].partition("?")[0]
        expected = image(name, 640, 480) if path.startswith("sized") else image(name)
        assert isinstance(outcome, EncodedImage)
        assert (outcome.data, outcome.final_url) == (expected, origin.url(path))

    @pytest.mark.parametrize("excess", [b"x", b"\0" * 1000, b"\r\n\r\nx", b"HTTP/1.1 404\r\n\r\n"])
    @pytest.mark.parametrize("connection", [b"", b"Connection: close\r\n", b"X: y\n"])
    def test_ends_where_its_length_says(self, origin, excess, connection):
        answer = b"HTTP/1.1 200 OK\r\n%bContent-Length: 5\r\n\r\nimage%b" % (connection, excess)
        urls = [origin.url(f"raw/{quote(answer, safe='')}"), origin.url("x.jpg")]
        longer, other = fetch_all(urls, fetch_concurrency=1)
        assert isinstance(longer, EncodedImage) and isinstance(other, EncodedImage)
        assert (longer.data, longer.attempts) == (b"image", 1)
        assert (other.data, other.attempts) == (image("x.jpg"), 1)
        assert len(origin.requests) == 2

    def test_ends_where_its_length_says_in_bare_line_feeds(self, origin):
        answer = b"HTTP/1.1 200 OK\nContent-Length: 5\n\nimage and more"
        outcome = fetch_one(origin.url(f"raw/{quote(answer, safe='')}"))
        assert isinstance(outcome, EncodedImage)
        assert (outcome.data, outcome.attempts) == (b"image", 1)

    def test_is_not_judged_here(self, origin):
        html, half = fetch_all([origin.url("html/x.jpg"), origin.url("half/x.jpg")])
        assert isinstance(html, EncodedImage)
        assert b"no longer available" in html.data
        assert isinstance(half, EncodedImage)
        assert image("x.jpg").startswith(half.data)

    def test_no_cookie_is_sent_back(self, origin):
        answer = b"HTTP/1.1 200 OK\r\nSet-Cookie: a=b; Path=/\r\nContent-Length: 5\r\n\r\nimage"
        url = origin.url(f"raw/{quote(answer, safe='')}", "name.test")
        outcomes = fetch_all([url] * 3, Names(name_test=["127.0.0.1"]), fetch_concurrency=1)
        assert [summarize(outcome) for outcome in outcomes] == [("image", 1)] * 3
        assert not any("cookie" in request.headers for request in origin.requests)


class TestFailures:
    @pytest.mark.parametrize(
        ("path", "reason"),
        [
            ("status/400", "http_400"),
            ("status/401", "http_401"),
            ("status/403", "http_403"),
            ("status/404", "http_404"),
            ("status/410", "http_410"),
            ("status/451", "http_451"),
            ("status/600", "http_600"),
            ("status/300", "http_300"),
            ("status/304", "http_304"),
            ("redirect-nowhere", "http_302"),
            ("status/204", "empty"),
            ("empty/x.jpg", "empty"),
            ("redirect-to?url=ftp://127.0.0.1/x.jpg", "unsupported_scheme"),
            ("redirect-to?url=data:image/png;base64,AAAA", "unsupported_scheme"),
            ("redirect-to?url=http://user@/", "invalid_url"),
            ("redirect-to?url=http://127.0.0.1:99999/", "invalid_url"),
        ],
    )
    def test_that_stay_are_not_tried_again(self, origin, path, reason):
        outcome = fetch_one(origin.url(path))
        assert isinstance(outcome, Failure)
        assert (outcome.stage, outcome.reason, outcome.attempts) == ("fetch", reason, 1)
        assert outcome.final_url == origin.url(path)
        assert outcome.detail
        assert len(origin.requests) == 1

    @pytest.mark.parametrize(
        ("path", "reason"),
        [
            ("status/429", "http_429"),
            ("status/500", "http_500"),
            ("status/502", "http_502"),
            ("status/503", "http_503"),
            ("status/504", "http_504"),
            ("status/501", "http_501"),
            ("status/599", "http_599"),
            ("cut/x.jpg", "connection_lost"),
            ("reset-body/x.jpg", "connection_lost"),
            ("garbage", "connection_lost"),
            ("huge-header/1000000/x.jpg", "connection_lost"),
        ],
    )
    def test_that_may_pass_are_tried_again(self, origin, path, reason):
        assert summarize(fetch_one(origin.url(path), fetch_attempts=4)) == (reason, 4)
        assert len(origin.requests) == 4

    def test_a_connection_that_is_reset(self, origin):
        assert summarize(fetch_one(origin.url("reset"))) == ("connection_lost", 3)
        # The HTTP library itself repeats, once, a request without any response.
        assert 3 <= len(origin.requests) <= 6

    @pytest.mark.parametrize("code", [429, 500, 502, 503, 504])
    def test_pass(self, origin, code):
        outcome = fetch_one(origin.url(f"flaky/2/{code}/x.jpg"))
        assert isinstance(outcome, EncodedImage)
        assert (outcome.data, outcome.attempts) == (image("x.jpg"), 3)
        assert len(origin.requests) == 3

    def test_pass_too_late(self, origin):
        assert summarize(fetch_one(origin.url("flaky/3/503/x.jpg"))) == ("http_503", 3)
        assert summarize(fetch_one(origin.url("flaky/1/503/x.jpg"), fetch_attempts=1)) == (
            "http_503",
            1,
        )
        assert len(origin.requests) == 4

    def test_each_image_has_one_outcome(self, origin, closed_port):
        paths = [
            *(
                "good/x.jpg",
                "status/404",
                "flaky/1/503/x.jpg",
                "redirect/2/x.jpg",
                "redirect-loop",
                "cut/x.jpg",
                "hang/x.jpg",
            ),
            *(
                "empty/x.jpg",
                "reset",
                "garbage",
                "large/30000/x.jpg",
                "bomb/30000/x.jpg",
                "slow/0.01/x.jpg",
                "half/x.jpg",
            ),
        ]
        urls = [origin.url(path) for path in paths] * 3
        urls += [f"http://nowhere.test/{index}" for index in range(10)]
        urls += [f"http://127.0.0.1:{closed_port}/{index}" for index in range(10)]
        outcomes = fetch_all(urls, fetch_timeout=0.5, fetch_concurrency=16, max_image_bytes=20_000)
        assert [outcome.ref.url for outcome in outcomes] == urls
        reported = [summarize(outcome)[0] for outcome in outcomes]
        assert (
            reported[: len(paths)]
            == reported[len(paths) : 2 * len(paths)]
            == reported[2 * len(paths) : 3 * len(paths)]
        )
        assert reported[: len(paths)] == [
            *(
                "image",
                "http_404",
                "image",
                "image",
                "too_many_redirects",
                "connection_lost",
                "timeout",
            ),
            *(
                "empty",
                "connection_lost",
                "connection_lost",
                "too_large",
                "too_large",
                "timeout",
                "image",
            ),
        ]
        assert reported[-20:] == ["dns"] * 10 + ["connect"] * 10

    @pytest.mark.parametrize(
        "answer",
        [
            b"",
            b"\r\n\r\n",
            b"HTTP/1.1 200 OK\r\n",
            b"HTTP/1.1 200",
            b"HTTP/1.1 099 Too Low\r\n\r\n",
            b"HTTP/1.1 1000 Too High\r\n\r\n",
            b"HTTP/1.1 000 None\r\n\r\n",
            b"HTTP/1.1 404 Pas trouv\xe9\r\nContent-Length: 0\r\n\r\n",
            b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
            b"HTTP/1.1 100 Continue\r\n\r\n" * 1000,
            b"HTTP/2 200 OK\r\n\r\n",
            b"x" * 10_000,
            b"ICY 200 OK\r\n\r\n",
            b"<html>no head at all</html>",
            b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\nabc",
            b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999999\r\n\r\nabc",
            b"HTTP/1.1 200 OK\r\nContent-Length: \xef\xbc\x93\r\n\r\nabc",
            b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabc",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-3\r\nabc\r\n0\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\nabc",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nab",
            b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\nabc",
            b"HTTP/1.1 200 OK\r\nContent-Encoding: x-gzip\r\n\r\nabc",
            b"HTTP/1.1 200 OK\r\nContent-Encoding: x-gzip\r\n\r\n" + gzip.compress(b"abc")[:-9],
            b"HTTP/1.1 200 OK\r\nContent-Encoding: br\r\n\r\nabc",
            b"HTTP/1.1 200 OK\r\nContent-Encoding: deflate\r\n\r\nabc",
            b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 0\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nX: a\0b\r\n\r\nabc",
            b"HTTP/1.1 200 OK\r\n: x\r\n\r\nabc",
            b"HTTP/1.1 200 OK\r\nX-\xff: \xff\r\n\r\nabc",
            b"HTTP/1.1 302 Found\r\nLocation: \r\nContent-Length: 0\r\n\r\n",
            b"HTTP/1.1 302 Found\r\nLocation: http://\xff/\r\nContent-Length: 0\r\n\r\n",
            b"HTTP/1.1 302 Found\r\nLocation: http://xn--a/\r\nContent-Length: 0\r\n\r\n",
            b"HTTP/1.1 302 Found\r\nLocation: http://a%00b/\r\nContent-Length: 0\r\n\r\n",
            b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:0/\r\nContent-Length: 0\r\n\r\n",
            b"HTTP/1.1 302 Found\r\nLocation: http://1.2.3.4.5/\r\nContent-Length: 0\r\n\r\n",
            b"HTTP/1.1 302 Found\r\nLocation: http:\r\nContent-Length: 0\r\n\r\n",
        ],
        ids=lambda answer: repr(answer[:40]),
    )
    def test_no_answer_is_too_odd(self, origin, answer):
        outcome = fetch_one(
            origin.url(f"raw/{quote(answer, safe='')}"), fetch_attempts=2, fetch_timeout=1
        )
        assert isinstance(outcome, Failure)
        assert REASONS.fullmatch(outcome.reason)
        assert len(outcome.detail) <= 1000
        json.dumps(outcome.as_json(), ensure_ascii=False).encode()


class TestRetryAfter:
    def test_seconds(self, origin):
        assert summarize(fetch_one(origin.url("retry-after/0.4/x.jpg"))) == ("image", 2)
        first, second = origin.requests
        assert second.begun - first.ended >= 0.4

    def test_date(self, origin):
        assert summarize(fetch_one(origin.url("retry-after-date/1.5/x.jpg"))) == ("image", 2)
        first, second = origin.requests
        assert second.begun - first.ended >= 0.4  # a date has a resolution of one second

    @pytest.mark.parametrize("value", ["181", "1e300", "inf", "Fri, 31 Dec 9999 23:59:59 GMT"])
    def test_longer_than_is_waited(self, origin, value):
        assert summarize(fetch_one(origin.url(f"retry-after/{quote(value)}/x.jpg"))) == (
            "http_503",
            1,
        )
        assert len(origin.requests) == 1

    @pytest.mark.parametrize(
        "value",
        [
            "soon",
            "",
            "-1",
            "nan",
            "9 9",
            "Mon, 01 Jan 2001 00:00:00 GMT",
            "Mon, 01 Jan 0001 00:00:00 -0000",
            "Mon, 99 Jan 2001 00:00:00 GMT",
            "Mon, 01 Jan 99999999999 00:00:00 GMT",
            "Mon, 01 Jan 2001 00:00:00 +99999999999999999999",
        ],
    )
    def test_that_names_no_future_time(self, origin, value):
        assert summarize(fetch_one(origin.url(f"retry-after/{quote(value)}/x.jpg"))) == ("image", 2)

    def test_an_image_that_had_to_queue_is_tried_again_all_the_same(self, origin, monkeypatch):
        monkeypatch.setattr(http_client, "RETRY_DEADLINE", 0.3)
        urls = [origin.url("delay/0.5/x.jpg"), origin.url("flaky/1/503/y.jpg")]
        assert [summarize(outcome) for outcome in fetch_all(urls, fetch_concurrency=1)] == [
            ("image", 1),
            ("image", 2),
        ]

    def test_an_image_that_queues_between_its_tries_has_all_of_them(self, origin, monkeypatch):
        monkeypatch.setattr(http_client, "RETRY_DEADLINE", 0.3)
        urls = [origin.url("flaky/2/503/x.jpg"), origin.url("delay/0.5/y.jpg")]
        assert [summarize(outcome) for outcome in fetch_all(urls, fetch_concurrency=1)] == [
            ("image", 3),
            ("image", 1),
        ]


class TestRedirects:
    @pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
    def test_are_followed(self, origin, code):
        outcome = fetch_one(origin.url(f"redirect-to?url=good/x.jpg&status={code}"))
        assert isinstance(outcome, EncodedImage)
        assert (outcome.data, outcome.attempts, outcome.final_url) == (
            image("x.jpg"),
            1,
            origin.url("good/x.jpg"),
        )

    def test_to_another_server(self, origin):
        with contextlib.closing(Origin()) as other:
            outcome = fetch_one(origin.url(f"redirect-to?url={quote(other.url('x.jpg#part'))}"))
            assert (*summarize(outcome), outcome.final_url) == ("image", 1, other.url("x.jpg"))
            assert other.paths == ["/x.jpg"]

    def test_up_to_the_limit(self, origin):
        outcome = fetch_one(origin.url(f"redirect/{MAX_REDIRECTS}/x.jpg"))
        assert (*summarize(outcome), outcome.final_url) == ("image", 1, origin.url("x.jpg"))

    def test_beyond_the_limit(self, origin):
        outcome = fetch_one(origin.url(f"redirect/{MAX_REDIRECTS + 1}/x.jpg"))
        assert (*summarize(outcome), outcome.final_url) == (
            "too_many_redirects",
            1,
            origin.url("redirect/1/x.jpg"),
        )
        assert len(origin.requests) == MAX_REDIRECTS + 1

    def test_in_a_loop(self, origin):
        assert summarize(fetch_one(origin.url("redirect-loop"))) == ("too_many_redirects", 1)
        assert len(origin.requests) == MAX_REDIRECTS + 1

    def test_what_fails_behind_one_is_tried_from_the_start(self, origin):
        outcome = fetch_one(origin.url("redirect/1/flaky/1/503/x.jpg"))
        assert (*summarize(outcome), outcome.final_url) == (
            "image",
            2,
            origin.url("flaky/1/503/x.jpg"),
        )
        assert origin.paths == ["/redirect/1/flaky/1/503/x.jpg", "/flaky/1/503/x.jpg"] * 2

    def test_final_url_of_a_failure(self, origin):
        outcome = fetch_one(origin.url("redirect/2/status/404"))
        assert (*summarize(outcome), outcome.final_url) == ("http_404", 1, origin.url("status/404"))


class TestDeadline:
    @pytest.mark.parametrize(
        "path",
        [
            *("hang", "slow/0.02/x.jpg", "slow-head/0.02/x.jpg", "endless-headers"),
            *("delay/30/x.jpg", "redirect/1/hang"),
        ],
    )
    def test_ends_what_would_not_end(self, origin, path):
        begun = time.monotonic()
        outcome = fetch_one(origin.url(path), fetch_timeout=0.2, fetch_attempts=2)
        assert time.monotonic() - begun < 10
        assert isinstance(outcome, Failure)
        assert outcome.reason in (
            ("timeout", "connection_lost") if path == "endless-headers" else ("timeout",)
        )
        assert outcome.attempts == 2
        assert len(origin.requests) == 2 * (2 if path.startswith("redirect") else 1)

    def test_is_one_for_all_redirects(self, origin):
        step = "delay/0.2/redirect/1/"
        assert summarize(
            fetch_one(origin.url(f"{3 * step}x.jpg"), fetch_timeout=0.5, fetch_attempts=1)
        ) == ("timeout", 1)
        assert summarize(
            fetch_one(origin.url(f"{2 * step}x.jpg"), fetch_timeout=5, fetch_attempts=1)
        ) == ("image", 1)

    def test_does_not_run_while_an_image_queues(self, origin):
        urls = [origin.url(f"delay/0.2/{index}.jpg") for index in range(6)]
        outcomes = fetch_all(urls, fetch_concurrency=2, fetch_timeout=0.5)
        assert [summarize(outcome) for outcome in outcomes] == [("image", 1)] * 6


class TestSize:
    @pytest.mark.parametrize("path", ["good", "chunked", "gzip", "x-gzip", "large-unannounced/1"])
    def test_limit(self, origin, path):
        size, url = len(image("x.jpg")), origin.url(f"{path}/x.jpg")
        assert summarize(fetch_one(url, max_image_bytes=size)) == ("image", 1)
        assert summarize(fetch_one(url, max_image_bytes=size - 1)) == ("too_large", 1)

    @pytest.mark.parametrize("path", ["large", "large-unannounced", "bomb", "x-bomb", "endless"])
    def test_what_is_far_too_large_is_not_tried_again(self, origin, path):
        url = origin.url(f"{path}/40000000/x.jpg")
        assert summarize(fetch_one(url, max_image_bytes=100_000)) == ("too_large", 1)
        assert len(origin.requests) == 1


class TestAddresses:
    @pytest.mark.parametrize(
        "host",
        [
            "127.0.0.1",
            "127.1",
            "2130706433",
            "0x7f000001",
            "0x7F.1",
            "017700000001",
            "0177.0.0.01",
            "１２７.0.0.1",
            "0",
            "10.1.2.3",
            "172.16.0.1",
            "192.168.1.1",
            "100.64.0.1",
            "169.254.169.254",
            "224.0.0.1",
            "255.255.255.255",
            "[::1]",
            "[::]",
            "[::ffff:127.0.0.1]",
            "[::127.0.0.1]",
            "[64:ff9b::127.0.0.1]",
            "[2002:7f00:1::]",
            "[fe80::1]",
            "[fe80::1%25lo]",
            "[fd00::1]",
            "[ff02::1]",
        ],
    )
    def test_that_are_not_public_are_refused(self, origin, host):
        url = f"http://{host}:{origin.port}/x.jpg"
        assert summarize(fetch_one(url, allow_private_addresses=False)) == ("blocked_address", 1)
        assert not origin.requests

    @pytest.mark.parametrize(
        "found",
        [["127.0.0.1"], ["10.0.0.1"], ["::1"], ["8.8.8.8", "127.0.0.1"], ["fd00::1", "8.8.8.8"]],
    )
    def test_that_a_name_leads_to_are_refused_if_only_one_is_not_public(self, origin, found):
        names = Names(name_test=found)
        urls = [f"http://name.test:{origin.port}/{index}.jpg" for index in range(3)]
        outcomes = fetch_all(urls, names, allow_private_addresses=False)
        assert [summarize(outcome) for outcome in outcomes] == [("blocked_address", 1)] * 3
        assert not origin.requests

    @pytest.mark.parametrize(
        "target",
        [
            "http://127.0.0.2:{}/",
            "http://[::1]:{}/",
            "http://0x7f.2:{}/",
            "http://inside.test:{}/",
            "http://169.254.169.254/",
        ],
    )
    def test_that_a_redirect_leads_to_are_refused(self, origin, loopback_is_public, target):
        target = target.format(origin.port)
        url = f"http://outside.test:{origin.port}/redirect-to?url={target}"
        outcome = fetch_one(
            url,
            Names(outside_test=["127.0.0.1"], inside_test=["127.0.0.3"]),
            allow_private_addresses=False,
        )
        assert summarize(outcome) == ("blocked_address", 1)
        assert len(origin.requests) == 1

    @pytest.fixture
    def connected(self, monkeypatch) -> list[str]:
        """Return the list of addresses that the client starts to connect to."""
        begun: list[str] = []
        connect = asyncio.selector_events.BaseSelectorEventLoop.sock_connect

        async def note(loop, sock, address):
            begun.append(address[0])
            await connect(loop, sock, address)

        monkeypatch.setattr(asyncio.selector_events.BaseSelectorEventLoop, "sock_connect", note)
        return begun

    @pytest.mark.parametrize("rebound", ["127.0.0.2", "10.0.0.1", "169.254.169.254", "::1"])
    @pytest.mark.parametrize("checked", [True, False])
    def test_that_a_name_is_rebound_to_are_not_connected_to(
        self, origin, loopback_is_public, connected, monkeypatch, rebound, checked
    ):
        names = Names(name_test=["127.0.0.1"])
        if not checked:  # simulates an address that changed after the resolver's answer was checked
            monkeypatch.setattr(public_addresses.PublicResolver, "resolve", names.resolve)

        async def run() -> list[EncodedImage | Failure]:
            async with open_client(names, allow_private_addresses=False) as client:
                outcomes = []
                # The client caches the addresses of a name per port.
                for port, address in ((origin.port, "127.0.0.1"), (1, rebound)):
                    names.addresses["name.test"] = [address]
                    ref = ImageRef("", f"http://name.test:{port}/x.jpg")
                    outcomes.append(await client.fetch(ref, Bundle(1000)))
                return outcomes

        reported = [summarize(outcome) for outcome in asyncio.run(run())]
        assert reported == [("image", 1), ("blocked_address", 1)]
        assert connected == ["127.0.0.1"]

    def test_in_any_spelling_are_allowed_on_demand(self, origin):
        for host in ("2130706433", "0x7f.1", "name.test", "[::ffff:127.0.0.1]"):
            outcome = fetch_one(
                f"http://{host}:{origin.port}/x.jpg", Names(name_test=["127.0.0.1"])
            )
            assert summarize(outcome) == ("image", 1)
        assert fetch_one(f"http://2130706433:{origin.port}/x.jpg").final_url == origin.url("x.jpg")


class TestConnections:
    def test_are_kept(self, origin):
        paths = [
            path
            for index in range(10)
            for path in (f"{index}.jpg", "status/404", f"redirect/1/{index}.png", "chunked/x.jpg")
        ]
        fetch_all([origin.url(path) for path in paths], fetch_concurrency=2)
        assert len(origin.requests) == 50
        assert len({request.connection for request in origin.requests}) <= 2

    @pytest.mark.parametrize("end", ["fresh-or-closed", "fresh-or-reset"])
    @pytest.mark.parametrize("count", [1, 8])
    def test_that_end_as_they_are_used_again(self, origin, end, count):
        async def fetch(client: WebClient, path: str) -> list[EncodedImage | Failure]:
            refs = [ImageRef("", origin.url(f"{path}/{index}.jpg")) for index in range(count)]
            return await asyncio.gather(*(client.fetch(ref, Bundle(1000)) for ref in refs))

        async def run() -> list[EncodedImage | Failure]:
            async with open_client(fetch_attempts=1) as client:
                return [*await fetch(client, "delay/0.1"), *await fetch(client, end)]

        assert [summarize(outcome) for outcome in asyncio.run(run())] == [("image", 1)] * 2 * count
        assert len({request.connection for request in origin.requests}) == 2 * count

    def test_a_name_without_address(self):
        outcome = fetch_one("http://nowhere.test/x.jpg", names := Names())
        assert (*summarize(outcome), outcome.final_url) == ("dns", 3, "http://nowhere.test/x.jpg")
        assert names.asked == ["nowhere.test"] * 3

    def test_a_name_that_is_found_at_last(self, origin, monkeypatch):
        names = Names()
        resolve = names.resolve

        async def learn(*args, **kwargs):
            if len(names.asked) == 2:
                names.addresses["name.test"] = ["127.0.0.1"]
            return await resolve(*args, **kwargs)

        monkeypatch.setattr(names, "resolve", learn)
        assert summarize(fetch_one(f"http://name.test:{origin.port}/x.jpg", names)) == ("image", 3)

    def test_refused(self, closed_port):
        url = f"http://127.0.0.1:{closed_port}/x.jpg"
        outcome = fetch_one(url)
        assert (*summarize(outcome), outcome.final_url) == ("connect", 3, url)

    def test_not_accepted(self):
        with socket.socket() as deaf, contextlib.ExitStack() as stack:
            deaf.bind(("127.0.0.1", 0))
            deaf.listen(0)
            for _ in range(4):  # fill the queue of connections to accept
                waiting = stack.enter_context(socket.socket())
                waiting.setblocking(False)
                waiting.connect_ex(deaf.getsockname())
            outcome = fetch_one(
                f"http://127.0.0.1:{deaf.getsockname()[1]}/x.jpg",
                fetch_timeout=0.3,
                fetch_attempts=2,
            )
            assert summarize(outcome) == ("timeout", 2)

    def test_secure(self, monkeypatch):
        authority = trustme.CA()
        served = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("127.0.0.1", "name.test").configure_cert(served)
        trusting = ssl.create_default_context()
        authority.configure_trust(trusting)
        names = Names(name_test=["127.0.0.1"], other_test=["127.0.0.1"])
        with contextlib.closing(Origin(tls=served)) as origin:
            assert summarize(fetch_one(origin.url("x.jpg"))) == ("tls", 1)  # the signer is unknown
            monkeypatch.setattr(aiohttp.connector, "_SSL_CONTEXT_VERIFIED", trusting)
            # The certificate is for another name.
            assert summarize(fetch_one(origin.url("x.jpg", "other.test"), names)) == (
                "tls",
                1,
            )
            assert not origin.requests
            outcomes = fetch_all(
                [origin.url("x.jpg"), origin.url("redirect/1/reset-body/y.jpg", "name.test")], names
            )
            assert [summarize(outcome) for outcome in outcomes] == [
                ("image", 1),
                ("connection_lost", 3),
            ]

    @pytest.mark.parametrize("fault", ["expired", "not yet valid", "self-signed"])
    def test_secure_with_a_certificate_that_is_not_valid(self, monkeypatch, fault):
        authority, served = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        trusting = ssl.create_default_context()
        now, day = datetime.datetime.now(datetime.UTC), datetime.timedelta(days=1)
        if fault == "self-signed":
            with authority.private_key_pem.tempfile() as key, authority.cert_pem.tempfile() as own:
                served.load_cert_chain(own, key)
        else:
            authority.configure_trust(trusting)
            begin = now - 2 * day if fault == "expired" else now + day
            certificate = authority.issue_cert("127.0.0.1", not_before=begin, not_after=begin + day)
            certificate.configure_cert(served)
        monkeypatch.setattr(aiohttp.connector, "_SSL_CONTEXT_VERIFIED", trusting)
        with contextlib.closing(Origin(tls=served)) as origin:
            outcome = fetch_one(origin.url("x.jpg"))
            assert summarize(outcome) == ("tls", 1)
            assert isinstance(outcome, Failure) and fault in outcome.detail
            assert not origin.requests

    def test_secure_to_a_server_that_is_not(self):
        async def fetch() -> EncodedImage | Failure:
            async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                writer.write(b"220 mail.test ESMTP\r\n")
                writer.close()

            async with (
                await asyncio.start_server(greet, "127.0.0.1", 0) as server,
                open_client() as client,
            ):
                url = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}/x.jpg"
                return await client.fetch(ImageRef("", url), Bundle(1000))

        assert summarize(asyncio.run(fetch())) == ("tls", 1)


class TestLimits:
    def test_of_requests_overall(self, origin):
        names = Names(**{f"host{index}_test": ["127.0.0.1"] for index in range(8)})
        urls = [
            origin.url(f"delay/0.05/{index}.jpg", f"host{index % 8}.test") for index in range(24)
        ]
        outcomes = fetch_all(urls, names, fetch_concurrency=5, host_concurrency=4)
        assert {summarize(outcome) for outcome in outcomes} == {("image", 1)}
        assert peak(origin.requests) == 5

    def test_of_requests_to_a_host(self, origin):
        with contextlib.closing(Origin()) as other:
            urls = [
                server.url(f"delay/0.05/{index}.jpg")
                for index in range(12)
                for server in (origin, other)
            ]
            assert {summarize(outcome) for outcome in fetch_all(urls, host_concurrency=3)} == {
                ("image", 1)
            }
            assert peak(origin.requests) == 3
            assert peak(other.requests) == 3

    def test_of_requests_to_a_host_that_is_named_with_users(self, origin):
        urls = [
            origin.url(f"delay/0.05/{index}.jpg", f"user{index}:secret@127.0.0.1")
            for index in range(12)
        ]
        assert {summarize(outcome) for outcome in fetch_all(urls, host_concurrency=3)} == {
            ("image", 1)
        }
        assert peak(origin.requests) == 3

    def test_of_requests_to_a_host_that_many_redirect_to(self, origin):
        with contextlib.closing(Origin()) as target:
            names = Names(**{f"host{index}_test": ["127.0.0.1"] for index in range(12)})
            urls = [
                origin.url(
                    f"redirect-to?url={target.url(f'delay/0.05/{index}.jpg')}",
                    f"host{index}.test",
                )
                for index in range(12)
            ]
            assert {
                summarize(outcome) for outcome in fetch_all(urls, names, host_concurrency=3)
            } == {("image", 1)}
            assert peak(target.requests) == 3

    def test_a_slow_host_does_not_keep_others_waiting(self, origin):
        with contextlib.closing(Origin()) as slow:
            urls = [slow.url(f"delay/0.2/{index}.jpg") for index in range(6)]
            urls += [origin.url(f"{index}.jpg") for index in range(20)]
            fetch_all(urls, fetch_concurrency=4, host_concurrency=2)
            assert len(origin.requests) == 20
            assert max(request.ended for request in origin.requests) < max(
                request.begun for request in slow.requests
            )

    def test_retries_of_one_image_leave_room_to_others(self, origin):
        urls = [
            origin.url("retry-after/0.5/slow.jpg"),
            *(origin.url(f"{index}.jpg") for index in range(5)),
        ]
        assert summarize(fetch_all(urls, fetch_concurrency=1)[0]) == ("image", 2)
        assert origin.paths[-1] == "/retry-after/0.5/slow.jpg"


class TestGivingUpAHost:
    @pytest.fixture(autouse=True)
    def no_spacing(self, monkeypatch):
        monkeypatch.setattr(circuit_breaker, "BREAKER_SPACING", 0)

    def test_whose_name_is_not_found(self):
        urls = [f"http://nowhere.test/{index}.jpg" for index in range(BREAKER_FAILURES + 4)]
        outcomes = fetch_all(urls, names := Names(), host_concurrency=1, fetch_attempts=1)
        assert [summarize(outcome) for outcome in outcomes] == [("dns", 1)] * BREAKER_FAILURES + [
            ("dns", 0)
        ] * 4
        assert names.asked == ["nowhere.test"] * BREAKER_FAILURES
        assert isinstance(outcomes[-1], Failure)
        assert "is skipped" in outcomes[-1].detail
        assert not any("Errno" in str(outcome) for outcome in outcomes)

    def test_that_has_a_pace_which_is_not_waited_for_then(self):
        async def run() -> Failure | EncodedImage:
            async with open_client(Names(), fetch_attempts=1) as client:
                url = "http://nowhere.test/x.jpg"
                pace = Pace(0)
                client._http.limit(yarl.URL(url), 1, pace)
                for _ in range(BREAKER_FAILURES):
                    await client.fetch(ImageRef("", url), Bundle(1000))
                pace.pause(100)
                fetched = client.fetch(ImageRef("", url), Bundle(1000))
                return await asyncio.wait_for(fetched, timeout=20)

        assert summarize(asyncio.run(run())) == ("dns", 0)

    def test_whose_name_is_not_answered(self):
        urls = [f"http://silent.test/{index}.jpg" for index in range(BREAKER_FAILURES + 4)]
        outcomes = fetch_all(
            urls,
            Names(silent_test=["hang"]),
            host_concurrency=1,
            fetch_attempts=1,
            fetch_timeout=0.1,
        )
        assert [summarize(outcome) for outcome in outcomes] == [
            ("timeout", 1)
        ] * BREAKER_FAILURES + [("timeout", 0)] * 4

    def test_that_others_redirect_to(self, origin, closed_port):
        urls = [
            origin.url(f"redirect-to?url=http://127.0.0.1:{closed_port}/{index}.jpg")
            for index in range(BREAKER_FAILURES + 4)
        ]
        outcomes = fetch_all(urls, host_concurrency=1, fetch_attempts=1)
        assert {summarize(outcome)[0] for outcome in outcomes} == {"connect"}
        details = [outcome.detail for outcome in outcomes if isinstance(outcome, Failure)]
        assert sum("is skipped" in detail for detail in details) == 4

    def test_only_after_failures_in_a_row(self, free_port, origin):
        async def fetch(client: WebClient, count: int) -> list[tuple[str, int]]:
            url = f"http://127.0.0.1:{free_port}/x.jpg"
            return [
                summarize(await client.fetch(ImageRef("", url), Bundle(1000))) for _ in range(count)
            ]

        async def run() -> None:
            async with open_client(fetch_attempts=1) as client:
                assert await fetch(client, BREAKER_FAILURES - 1) == [("connect", 1)] * (
                    BREAKER_FAILURES - 1
                )
                with contextlib.closing(Origin(port=free_port)):
                    assert await fetch(client, 1) == [("image", 1)]
                assert await fetch(client, BREAKER_FAILURES + 1) == [
                    ("connect", 1)
                ] * BREAKER_FAILURES + [("connect", 0)]
                assert summarize(
                    await client.fetch(ImageRef("", origin.url("x.jpg")), Bundle(1000))
                ) == ("image", 1)

        asyncio.run(run())

    def test_not_for_a_moment_in_which_all_its_requests_fail(self, free_port):
        async def run() -> list[EncodedImage | Failure]:
            async with open_client(fetch_attempts=3) as client:
                urls = [f"http://127.0.0.1:{free_port}/{index}.jpg" for index in range(1000)]
                fetching = [
                    asyncio.ensure_future(client.fetch(ImageRef("", url), Bundle(1000)))
                    for url in urls
                ]
                await asyncio.sleep(0.1)
                with contextlib.closing(Origin(port=free_port)):
                    return await asyncio.gather(*fetching)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(http_client, "BACKOFF", 0.5)
            patch.setattr(circuit_breaker, "BREAKER_SPACING", BREAKER_SPACING)
            assert {type(outcome) for outcome in asyncio.run(run())} == {EncodedImage}

    def test_not_for_what_it_answers(self, origin):
        urls = [origin.url(f"status/503/{index}.jpg") for index in range(2 * BREAKER_FAILURES)]
        urls += [origin.url(f"cut/{index}.jpg") for index in range(2 * BREAKER_FAILURES)]
        outcomes = fetch_all([*urls, origin.url("x.jpg")], host_concurrency=1, fetch_attempts=1)
        assert summarize(outcomes[-1]) == ("image", 1)
        assert len(origin.requests) == len(urls) + 1

    def test_hosts_that_answer_are_not_remembered(self, origin):
        async def run() -> int:
            names = Names(**{f"host{index}_test": ["127.0.0.1"] for index in range(20)})
            async with open_client(names) as client:
                urls = [origin.url(f"{index}.jpg", f"host{index}.test") for index in range(20)]
                outcomes = await asyncio.gather(
                    *(client.fetch(ImageRef("", url), Bundle(1000)) for url in urls)
                )
                assert {summarize(outcome) for outcome in outcomes} == {("image", 1)}
                return len(client._http._hosts)

        assert asyncio.run(run()) == 0


class TestUrls:
    PRINTABLE = st.characters(min_codepoint=0x21, max_codepoint=0x7E, exclude_characters="#")
    TARGET = st.text(PRINTABLE)
    HOST = st.text("0123456789abcdefxX.:[]@%-_/?#xn--\\", max_size=30)
    ABSOLUTE = st.builds("{}//{}".format, st.sampled_from(["", "http:", "https:"]), HOST)
    LOCATION = st.one_of(st.binary(max_size=20), ABSOLUTE.map(str.encode))

    @pytest.mark.parametrize("path", ["status/404/%7Euser/~user/%2F%2f?X=%3D&Y=a+b;c%", "x.jpg?"])
    def test_are_requested_as_they_are_spelled(self, origin, path):
        fetch_one(origin.url(path))
        fetch_one(origin.url(f"redirect-to?url={quote(origin.url(path))}"))
        fetch_one(origin.url(f"redirect-to?url=/{quote(path)}"))
        assert origin.paths[0] == origin.paths[2] == origin.paths[4] == f"/{path}"

    @settings(max_examples=20, deadline=None)
    @given(st.lists(TARGET, min_size=1, max_size=50))
    def test_in_ascii_are_requested_as_they_are_spelled(self, targets):
        with contextlib.closing(Origin()) as origin:
            fetch_all([origin.url(f"status/404/{target}") for target in targets])
            assert sorted(origin.paths) == sorted(f"/status/404/{target}" for target in targets)

    def test_are_quoted_where_they_could_not_be_sent(self, origin):
        fetch_one(origin.url("status/404/a b\x7fü%20"))
        location = b"HTTP/1.1 302 Found\r\nLocation: /status/404/\xfc \xc3\xbc\r\n\r\n"
        fetch_one(origin.url(f"raw/{quote(location, safe='')}"))
        assert origin.paths[0] == "/status/404/a%20b%7F%C3%BC%20"
        assert origin.paths[2] == "/status/404/%FC%20%C3%BC"

    def test_of_a_relative_redirect_stay_quoted(self, origin):
        folder = "redirect-to/a%20b%0D%0Ac"
        assert summarize(fetch_one(origin.url(f"{folder}/d?url=e%3Furl=/x.jpg"))) == ("image", 1)
        assert origin.paths[1:] == [f"/{folder}/e?url=/x.jpg", "/x.jpg"]

    @pytest.mark.parametrize(
        "url", ["http://xn--zz--.example/", "http://xn--a.example/", "x.jpg", "\udcff"]
    )
    def test_that_are_none_are_failures(self, url):
        outcome = fetch_one(url)
        assert isinstance(outcome, Failure)
        assert (outcome.stage, outcome.reason, outcome.attempts) == ("fetch", "invalid_url", 0)

    @settings(max_examples=50, deadline=None)
    @given(st.lists(LOCATION, min_size=1, max_size=50))
    def test_of_any_redirect_end_no_job(self, locations):
        head = b"HTTP/1.1 302 Found\r\nLocation: %b\r\nContent-Length: 0\r\n\r\n"
        with contextlib.closing(Origin()) as origin, pytest.MonkeyPatch.context() as patch:
            patch.setattr(public_addresses, "is_public", lambda address: address == "127.0.0.1")
            urls = [origin.url(f"raw/{quote(head % location, safe='')}") for location in locations]
            outcomes = fetch_all(
                urls,
                allow_private_addresses=False,
                fetch_attempts=1,
                fetch_timeout=2,
            )
            for outcome in outcomes:
                assert isinstance(outcome, Failure)
                assert REASONS.fullmatch(outcome.reason)
                json.dumps(outcome.as_json(), ensure_ascii=False).encode()


class TestRobots:
    @pytest.mark.parametrize(
        "tags",
        [
            *(
                ["noai"],
                ["noimageai"],
                ["noindex"],
                ["noimageindex"],
                ["none"],
                ["NoAI"],
                ["nofollow, noindex"],
                ["all", "noai"],
            ),
            *(
                ["*: noai"],
                ["beam_pipeline: noindex"],
                ["Beam_Pipeline:noarchive,noai"],
                ["otherbot: all, beam_pipeline: noai"],
            ),
            ["unavailable_after: 25 Jun 2030 15:00:00 PST, noindex"],
            *(["max-image-preview:large, noindex"], ["max-snippet: 20, noai"]),
            ["max-snippet:-1, max-image-preview: large, max-video-preview:-1, noimageindex"],
        ],
    )
    def test_that_keep_an_image_to_itself(self, origin, tags):
        query = "&".join(f"tag={quote(tag)}" for tag in tags)
        assert summarize(fetch_one(origin.url(f"robots/x.jpg?{query}"))) == ("disallowed", 1)
        assert len(origin.requests) == 1

    @pytest.mark.parametrize(
        "tag",
        [
            "all",
            "nofollow",
            "nosnippet",
            "otherbot: noindex",
            "otherbot: nofollow, noai",
            "noai2",
            ": , :",
        ],
    )
    def test_that_do_not(self, origin, tag):
        assert summarize(fetch_one(origin.url(f"robots/x.jpg?tag={quote(tag)}"))) == ("image", 1)

    def test_for_another_name_of_ours(self, origin):
        url = origin.url(f"robots/x.jpg?tag={quote('mybot: noindex')}")
        assert summarize(fetch_one(url)) == ("image", 1)
        assert summarize(fetch_one(url, user_agent="MyBot/2.0 (mail@example.com)")) == (
            "disallowed",
            1,
        )


@pytest.mark.parametrize(
    "target",
    [
        "http://l.yimg.com/g/images/photo_unavailable.gif",
        "https://s.yimg.com/pw/images/en-us/photo_unavailable.png",
        "https://combo.staticflickr.com/pw/images/photo_unavailable_l.png?x=1",
        "https://i.imgur.com/removed.png",
    ],
)
def test_redirect_to_a_placeholder(origin, target):
    outcome = fetch_one(origin.url(f"redirect-to?url={quote(target)}"))
    assert summarize(outcome) == ("placeholder", 1)
    assert isinstance(outcome, Failure) and target in outcome.detail


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM])
def test_a_fault_of_the_machine_is_no_images_fault(origin, monkeypatch, number):
    def fail(*_arguments):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(public_addresses, "public_socket", fail)
    monkeypatch.setattr(public_addresses, "is_public", lambda _address: True)
    with pytest.raises(OSError, match=os.strerror(number)) as caught:
        fetch_one(origin.url("x.jpg"), allow_private_addresses=False)
    assert origin.url("x.jpg") in caught.value.__notes__[-1]
