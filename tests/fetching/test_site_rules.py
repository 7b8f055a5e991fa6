"""Tests of the rules of sites, with images from servers on loopback."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import json
import time
from collections.abc import Sequence
from urllib.parse import quote

import pytest
import yarl
from origin import Origin, peak
from web import Names, fetch_all, fetch_one, open_client, summarize

from beam_pipeline.elements import EncodedImage, Failure, ImageRef
from beam_pipeline.fetching import http_client, public_addresses, site_rules
from beam_pipeline.fetching.web_client import Bundle, WebClient

ROBOTS, RESERVATIONS = "/robots.txt", "/.well-known/tdmrep.json"


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(http_client, "BACKOFF", 0.001)


def text(content: str | bytes) -> str:
    """Return the path of an answer with this content."""
    return f"text/{quote(content, safe='')}"


def redirect(url: str) -> str:
    """Return the path of a redirect to a URL."""
    head = f"HTTP/1.1 302 Found\r\nLocation: {url}\r\nContent-Length: 0\r\n\r\n"
    return f"raw/{quote(head, safe='')}"


def forbid(*patterns: str) -> str:
    return text("User-agent: *\n" + "".join(f"Disallow: {pattern}\n" for pattern in patterns))


def fetch(url: str, names: Names | None = None, **options) -> EncodedImage | Failure:
    return fetch_one(url, names, obey_robots_txt=True, **options)


def detail(outcome: EncodedImage | Failure) -> str:
    assert isinstance(outcome, Failure)
    return f"{outcome.reason}: {outcome.detail}"


def are_spaced(begun: Sequence[float], interval: float) -> bool:
    """Return whether requests were spaced; one may be noted late on a busy machine."""
    return begun[-1] - begun[0] > interval * (len(begun) - 2)


class TestRobots:
    def test_disallow_an_image_that_is_not_requested(self, origin):
        origin.aliases[ROBOTS] = forbid("/private/", "/*.png$")
        outcome = fetch(origin.url("private/x.jpg"))
        assert detail(outcome) == "disallowed: robots.txt: Disallow: /private/"
        assert (outcome.attempts, origin.paths) == (0, [ROBOTS, RESERVATIONS])
        assert detail(fetch(origin.url("x.png"))) == "disallowed: robots.txt: Disallow: /*.png$"
        assert summarize(fetch(origin.url("x.jpg"))) == ("image", 1)

    def test_are_not_asked_for_without_the_option(self, origin):
        origin.aliases[ROBOTS] = forbid("/")
        assert summarize(fetch_one(origin.url("x.jpg"))) == ("image", 1)
        assert origin.paths == ["/x.jpg"]

    def test_count_for_our_name(self, origin):
        origin.aliases[ROBOTS] = text("User-agent: MyBot\nDisallow: /\nUser-agent: *\nDisallow:")
        assert summarize(fetch(origin.url("x.jpg"))) == ("image", 1)
        outcome = fetch(origin.url("x.jpg"), user_agent="mybot/2.0 (me@example.com)")
        assert detail(outcome) == "disallowed: robots.txt: Disallow: /"

    def test_are_fetched_once_for_a_site(self, origin):
        origin.aliases[ROBOTS] = f"delay/0.1/{forbid('/private/')}"
        names = Names(a_test=["127.0.0.1"], b_test=["127.0.0.1"])
        urls = [origin.url(f"{index}.jpg", f"{host}.test") for index in range(10) for host in "ab"]
        outcomes = fetch_all(urls, names, obey_robots_txt=True, host_concurrency=1)
        assert {summarize(outcome) for outcome in outcomes} == {("image", 1)}
        numbers = collections.Counter(origin.paths)
        assert numbers[ROBOTS] == numbers[RESERVATIONS] == 2
        hosts = {request.headers["host"] for request in origin.requests if request.path == ROBOTS}
        assert hosts == {f"{host}.test:{origin.port}" for host in "ab"}

    @pytest.mark.parametrize("status", [400, 401, 403, 404, 410, 451, 300, 304])
    def test_that_a_site_does_not_have_allow_everything(self, origin, status):
        origin.aliases[ROBOTS] = f"status/{status}"
        assert summarize(fetch(origin.url("x.jpg"))) == ("image", 1)

    @pytest.mark.parametrize("answer", ["status/204", "empty/x", text("<html>"), "redirect-loop"])
    def test_that_are_none_allow_everything(self, origin, answer):
        origin.aliases[ROBOTS] = answer
        assert summarize(fetch(origin.url("x.jpg"))) == ("image", 1)

    @pytest.mark.parametrize("status", [500, 502, 503, 504])
    def test_that_fail_are_waited_for(self, origin, status):
        origin.aliases[ROBOTS] = f"flaky/2/{status}/{forbid('/private/')}"
        assert summarize(fetch(origin.url("x.jpg"))) == ("image", 1)
        assert origin.paths.count(ROBOTS) == 3

    @pytest.mark.parametrize(
        ("status", "phrase"), [(503, "Service Unavailable"), (429, "Too Many Requests")]
    )
    def test_that_fail_for_good_disallow(self, origin, status, phrase):
        origin.aliases[ROBOTS] = f"status/{status}"
        outcomes = fetch_all(
            [origin.url(f"{index}.jpg") for index in range(5)], obey_robots_txt=True
        )
        expected = f"disallowed: /robots.txt: http_{status}: {status} {phrase}"
        assert [detail(outcome) for outcome in outcomes] == [expected] * 5
        assert origin.paths == [ROBOTS] * 3

    def test_are_waited_for_as_the_site_asks(self, origin):
        origin.aliases[ROBOTS] = f"retry-after/0.4/{forbid('/private/')}"
        assert summarize(fetch(origin.url("x.jpg"))) == ("image", 1)
        first, second, *_ = origin.requests
        assert second.begun - first.ended > 0.35

    @pytest.mark.parametrize("answer", ["hang", "slow-head/0.1/x.jpg", "reset", "garbage"])
    def test_that_do_not_arrive_disallow(self, origin, answer):
        origin.aliases[ROBOTS] = answer
        outcome = fetch(origin.url("x.jpg"), fetch_timeout=0.2, fetch_attempts=2)
        assert detail(outcome).startswith("disallowed: /robots.txt: ")

    @pytest.mark.parametrize("hops", [1, 5])
    def test_are_found_behind_redirects(self, origin, hops):
        with contextlib.closing(Origin()) as other:
            other.aliases["/rules"] = forbid("/x")
            origin.aliases["/last"] = redirect(other.url("rules"))
            origin.aliases[ROBOTS] = f"redirect/{hops}/last"
            outcome = fetch(origin.url("x.jpg"))
            assert detail(outcome) == "disallowed: robots.txt: Disallow: /x"
            # The rules of the other site do not matter.
            assert other.paths == ["/rules"]

    def test_count_at_the_target_of_a_redirect(self, origin):
        with contextlib.closing(Origin()) as other:
            other.aliases[ROBOTS] = forbid("/")
            outcome = fetch(origin.url(f"redirect-to?url={quote(other.url('x.jpg'))}"))
            assert detail(outcome) == "disallowed: robots.txt: Disallow: /"
            assert (outcome.attempts, outcome.final_url) == (1, other.url("x.jpg"))
            assert other.paths == [ROBOTS]

    @pytest.mark.parametrize(
        "body",
        [
            b"User-agent: *\nDisallow: /private\n" + bytes(1_000_000),
            b"User-agent: *\n" + b"Disallow: /y*a*b$\n" * 50_000,
            b"User-agent: *\nDisallow: /" + b"*a" * 300_000,
            b"".join(b"User-agent: bot%d\n" % number for number in range(50_000)),
            b"\x1f\x8b" + bytes(range(256)) * 4000,
        ],
    )
    def test_that_are_huge_fail_no_image(self, origin, body):
        with contextlib.closing(Origin()) as other:
            other.aliases[ROBOTS] = text(body)
            urls = [server.url(f"{index}.jpg") for index in range(20) for server in (origin, other)]
            outcomes = fetch_all(urls, obey_robots_txt=True, fetch_timeout=60)
            assert {summarize(outcome) for outcome in outcomes} == {("image", 1)}

    @pytest.mark.parametrize("answer", ["endless/x", "bomb/100000000/x"])
    def test_that_do_not_end_are_read_up_to_the_limit(self, origin, answer):
        origin.aliases[ROBOTS] = answer
        assert summarize(fetch(origin.url("x.jpg"))) == ("image", 1)

    def test_are_matched_one_at_a_time_if_they_are_costly(self, origin, monkeypatch):
        running, most = 0, 0

        def find(*arguments: object) -> tuple[None, None]:
            nonlocal running, most
            running += 1
            most = max(most, running)
            time.sleep(0.005)
            running -= 1
            return None, None

        monkeypatch.setattr(site_rules, "_find_rules", find)
        monkeypatch.setattr(site_rules.path_rules, "SMALL_WORK", -1)
        urls = [origin.url(f"{index}.jpg") for index in range(10)]
        outcomes = fetch_all(urls, obey_robots_txt=True)
        assert {summarize(outcome) for outcome in outcomes} == {("image", 1)}
        assert most == 1


class TestSitesThatCannotBeReached:
    def test_give_their_own_reason(self, origin):
        urls = ["http://nowhere.test/x.jpg", "http://127.0.0.1:1/x.jpg"]
        outcomes = fetch_all(urls, obey_robots_txt=True)
        assert [summarize(outcome) for outcome in outcomes] == [("dns", 0), ("connect", 0)]

    def test_do_not_answer_a_name(self):
        outcome = fetch("http://silent.test/", Names(silent_test=["hang"]), fetch_timeout=0.1)
        assert summarize(outcome) == ("timeout", 0)

    def test_are_not_public(self, origin):
        outcome = fetch(origin.url("x.jpg"), allow_private_addresses=False)
        assert summarize(outcome) == ("blocked_address", 0)
        assert not origin.requests

    def test_behind_a_redirect_of_their_rules(self, origin, monkeypatch):
        is_public = public_addresses.is_public
        monkeypatch.setattr(
            public_addresses,
            "is_public",
            lambda address: address == "127.0.0.1" or is_public(address),
        )
        origin.aliases[ROBOTS] = redirect("http://127.0.0.2/")
        outcome = fetch(origin.url("x.jpg"), allow_private_addresses=False)
        assert detail(outcome).startswith("disallowed: /robots.txt: blocked_address: ")

    def test_are_asked_again_later(self, origin, monkeypatch):
        monkeypatch.setattr(site_rules, "UNREACHABLE", 0.0)
        origin.aliases[ROBOTS] = f"flaky/1/503/{forbid()}"

        async def run() -> list[tuple[str, int]]:
            async with open_client(obey_robots_txt=True, fetch_attempts=1) as client:
                ref = ImageRef("", origin.url("x.jpg"))
                return [summarize(await client.fetch(ref, Bundle(100))) for _ in range(2)]

        assert asyncio.run(run()) == [("disallowed", 0), ("image", 1)]


class TestCrawlDelay:
    def test_spaces_the_requests_of_a_site(self, origin):
        origin.aliases[ROBOTS] = text("User-agent: *\nCrawl-delay: 0.1")
        with contextlib.closing(Origin()) as other:
            urls = [origin.url(f"redirect/1/{index}.jpg") for index in range(3)]
            urls += [other.url(f"{index}.jpg") for index in range(20)]
            outcomes = fetch_all(urls, obey_robots_txt=True)
            assert {summarize(outcome) for outcome in outcomes} == {("image", 1)}
            assert max(request.ended for request in other.requests) < origin.requests[-1].begun
        begun = [request.begun for request in origin.requests]
        assert len(begun) == 8
        assert are_spaced(begun, 0.1)

    def test_is_that_of_all_processes(self, origin):
        origin.aliases[ROBOTS] = text("User-agent: *\nCrawl-delay: 0.05")

        async def run() -> None:
            async with open_client(obey_robots_txt=True, processes=4) as client:
                ref = ImageRef("", origin.url("x.jpg"))
                await asyncio.gather(*(client.fetch(ref, Bundle(100)) for _ in range(2)))

        asyncio.run(run())
        *_, first, second = origin.requests
        assert second.begun - first.begun > 0.15

    def test_leaves_the_slots_to_others(self, origin):
        origin.aliases[ROBOTS] = text("User-agent: *\nCrawl-delay: 0.2")
        with contextlib.closing(Origin()) as other:
            urls = [origin.url("x.jpg"), *(other.url(f"{index}.jpg") for index in range(10))]
            fetch_all(urls, obey_robots_txt=True, fetch_concurrency=1)
            assert origin.paths[-1] == "/x.jpg"
            assert max(request.ended for request in other.requests) < origin.requests[-1].begun
            assert peak([*origin.requests, *other.requests]) == 1

    def test_that_is_too_long_disallows(self, origin):
        origin.aliases[ROBOTS] = text("User-agent: *\nCrawl-delay: 3600")
        outcome = fetch(origin.url("x.jpg"))
        assert detail(outcome) == (
            "disallowed: robots.txt: Crawl-delay: 3600; at most 30 seconds are waited"
        )
        assert origin.paths == [ROBOTS]

    def test_lasts_longer_than_the_rules(self, origin, monkeypatch):
        """Images that wait for their turn, and those that come when the rules are outdated."""
        monkeypatch.setattr(site_rules, "VALID", -1.0)
        origin.aliases[ROBOTS] = text("User-agent: *\nCrawl-delay: 0.1")

        async def run() -> None:
            async with open_client(obey_robots_txt=True, host_concurrency=8) as client:
                fetches = [
                    client.fetch(ImageRef("", origin.url(f"{index}.jpg")), Bundle(100))
                    for index in range(6)
                ]
                first = [asyncio.create_task(fetching) for fetching in fetches[:3]]
                await first[0]
                await asyncio.gather(*fetches[3:], *first)

        asyncio.run(run())
        begun = [request.begun for request in origin.requests if request.path != ROBOTS]
        assert origin.paths.count(ROBOTS) >= 2
        assert are_spaced(begun, 0.1)


class TestReservations:
    def reserve(self, origin: Origin, **fields: object) -> None:
        entry = {"location": "/", "tdm-reservation": 1, **fields}
        origin.aliases[RESERVATIONS] = text(json.dumps([entry]))

    def test_of_a_response(self, origin):
        url = origin.url("header/TDM-Reservation/1/x.jpg")
        assert detail(fetch(url)) == "disallowed: tdm-reservation: 1"
        assert summarize(fetch_one(url)) == ("image", 1)

    def test_of_a_site(self, origin):
        self.reserve(origin, **{"tdm-policy": "https://a.example/policy"})
        assert detail(fetch(origin.url("x.jpg"))) == (
            "disallowed: tdmrep.json: / is reserved; tdm-policy: https://a.example/policy"
        )
        assert summarize(fetch_one(origin.url("x.jpg"))) == ("image", 1)

    def test_of_a_site_unless_the_response_grants_it(self, origin):
        self.reserve(origin)
        assert summarize(fetch(origin.url("header/tdm-reservation/0/x.jpg"))) == ("image", 1)

    @pytest.mark.parametrize("answer", ["status/404", "status/500", "hang", "html/x.jpg"])
    def test_that_cannot_be_read(self, origin, answer):
        origin.aliases[RESERVATIONS] = answer
        outcome = fetch(origin.url("x.jpg"), fetch_timeout=0.2, fetch_attempts=2)
        assert summarize(outcome) == ("image", 1)

    def test_that_cannot_be_reached_are_asked_for_again(self, origin, monkeypatch):
        monkeypatch.setattr(site_rules, "RETRY_RESERVATIONS", 0.0)
        self.reserve(origin)
        origin.aliases[RESERVATIONS] = f"flaky/1/503/{origin.aliases[RESERVATIONS]}"

        async def run() -> list[str]:
            async with open_client(obey_robots_txt=True, fetch_attempts=1) as client:
                ref = ImageRef("", origin.url("x.jpg"))
                return [summarize(await client.fetch(ref, Bundle(100)))[0] for _ in range(2)]

        assert asyncio.run(run()) == ["image", "disallowed"]
        # robots.txt stays known.
        assert origin.paths.count(ROBOTS) == 1


class TestMemory:
    def sites(self, client: WebClient) -> list[yarl.URL]:
        assert client._rules
        return list(client._rules._sites)

    def test_holds_the_sites_that_were_used_last(self, origin, monkeypatch):
        monkeypatch.setattr(site_rules, "_MAX_SITES", 3)
        names = Names(**{f"host{index}_test": ["127.0.0.1"] for index in range(8)})

        async def run() -> list[str | None]:
            async with open_client(names, obey_robots_txt=True) as client:
                for index in (0, 1, 2, 0, 3, 4, 0):
                    ref = ImageRef("", origin.url("x.jpg", f"host{index}.test"))
                    assert summarize(await client.fetch(ref, Bundle(100))) == ("image", 1)
                return [site.host for site in self.sites(client)]

        assert asyncio.run(run()) == ["host3.test", "host4.test", "host0.test"]
        assert origin.paths.count(ROBOTS) == 5

    def test_counts_the_rules(self, origin, monkeypatch):
        monkeypatch.setattr(site_rules, "_MAX_SIZE", 10_000)
        origin.aliases[f"large.test{ROBOTS}"] = forbid(*("/private" * 10 for _ in range(200)))
        names = Names(large_test=["127.0.0.1"], small_test=["127.0.0.1"])

        async def run() -> list[str | None]:
            async with open_client(names, obey_robots_txt=True) as client:
                for name in ("small", "large", "small"):
                    ref = ImageRef("", origin.url("x.jpg", f"{name}.test"))
                    assert summarize(await client.fetch(ref, Bundle(100))) == ("image", 1)
                return [site.host for site in self.sites(client)]

        # What is larger than the limit is not held at all.
        assert asyncio.run(run()) == ["small.test"]
        assert origin.paths.count(ROBOTS) == 3

    def test_an_image_that_is_cancelled_leaves_the_rules_to_others(self, origin):
        origin.aliases[ROBOTS] = f"delay/0.2/{forbid('/private')}"

        async def run() -> tuple[str, int]:
            async with open_client(obey_robots_txt=True) as client:
                fetching = [
                    asyncio.ensure_future(client.fetch(ImageRef("", origin.url(path)), Bundle(100)))
                    for path in ("x.jpg", "y.jpg")
                ]
                await asyncio.sleep(0.05)
                fetching[0].cancel()
                return summarize(await fetching[1])

        assert asyncio.run(run()) == ("image", 1)
        assert origin.paths.count(ROBOTS) == 1
