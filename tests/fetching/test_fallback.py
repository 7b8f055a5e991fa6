"""Tests of other sources of images that are gone, with an archive on loopback."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.parse import quote

import pytest
from origin import Origin, image, peak
from web import Names, open_client

from beam_pipeline.elements import EncodedImage, Extent, Failure, ImageRef, Problem, StoredCopy
from beam_pipeline.fetching import http_client, http_urls, public_addresses, web_client
from beam_pipeline.fetching.fallback import Fallback, capture_url, captures_of
from beam_pipeline.fetching.web_client import Bundle

EARLY, LATE = "20050607080910", "20200102030405"


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(http_client, "BACKOFF", 0.001)
    monkeypatch.setattr(web_client, "ARCHIVE_INTERVAL", 0.0)


@pytest.fixture
def archive() -> Iterator[Origin]:
    with contextlib.closing(Origin()) as server:
        yield server


def rescue_all(
    refs: Sequence[ImageRef | str],
    archive: Origin | None,
    excluded: frozenset[str] = frozenset(),
    processes: int = 1,
    **options,
) -> list[EncodedImage | Failure]:
    """Fetch images concurrently, each from its origin and then from the fallback."""
    if archive:
        options = {"fallback": "wayback", "fallback_url": archive.url(), **options}

    async def fetch() -> list[EncodedImage | Failure]:
        async with open_client(Names(), processes, **options) as client:
            fallback = Fallback(client._config, client, asyncio.Semaphore(4))
            bundle = Bundle(1000, excluded)

            async def rescue(ref: ImageRef) -> EncodedImage | Failure:
                return await fallback.rescue(await client.fetch(ref, bundle), bundle)

            return await asyncio.gather(
                *(rescue(ImageRef("", ref) if isinstance(ref, str) else ref) for ref in refs)
            )

    return asyncio.run(fetch())


def rescue(ref: ImageRef | str, archive: Origin | None, **options) -> EncodedImage | Failure:
    [outcome] = rescue_all([ref], archive, **options)
    return outcome


def detail(outcome: EncodedImage | Failure) -> tuple[str, str]:
    assert isinstance(outcome, Failure)
    return outcome.reason, outcome.detail


def capture(archive: Origin, url: str, path: str = "good/x.jpg") -> str:
    """Give the archive a capture; return its URL."""
    archive.captures[url] = {EARLY: path}
    return archive.url(f"web/{EARLY}id_/{url}")


class TestArchive:
    @pytest.mark.parametrize(
        ("path", "reason"),
        [
            ("status/404/x.jpg", "http_404"),
            ("status/410/x.jpg?a=b&c", "http_410"),
            ("redirect/1/status/404", "http_404"),
            ("redirect-to?url=https://i.imgur.com/removed.png", "placeholder"),
            ("http://nowhere.test/x.jpg", "dns"),
            ("http://127.0.0.1:1/x.jpg", "connect"),
        ],
    )
    def test_has_what_is_gone(self, origin, archive, path, reason):
        url = path if "://" in path[:8] else origin.url(path)
        final_url = capture(archive, url)
        outcome = rescue(url, archive)
        assert isinstance(outcome, EncodedImage)
        assert (outcome.ref.url, outcome.data) == (url, image("x.jpg"))
        assert (outcome.final_url, outcome.image_source) == (final_url, "fallback")
        assert outcome.gone and outcome.gone.reason == reason
        assert archive.paths == [
            f"/web/19960101000000id_/{url}",
            f"/web/{EARLY}id_/{url}",
        ]

    def test_has_what_was_replaced(self, origin, archive):
        url = origin.url("replaced.jpg")
        capture(archive, url)
        excluded = frozenset({hashlib.sha256(image("replaced.jpg")).hexdigest()})
        outcome = rescue(url, archive, excluded=excluded)
        assert isinstance(outcome, EncodedImage)
        assert outcome.data == image("x.jpg")
        assert outcome.gone and outcome.gone.reason == "placeholder"

    @pytest.mark.parametrize(
        "path",
        [
            *("status/403", "status/500", "status/429", "hang", "reset", "empty/x.jpg"),
            *("large/30000/x.jpg", "redirect-loop", "robots/x.jpg?tag=noai"),
        ],
    )
    def test_is_not_asked_for_what_may_be_there(self, origin, archive, path):
        capture(archive, origin.url(path))
        outcome = rescue(origin.url(path), archive, fetch_timeout=0.3, max_image_bytes=20_000)
        assert isinstance(outcome, Failure)
        assert not archive.requests

    def test_is_not_asked_for_what_is_there(self, origin, archive):
        outcome = rescue(origin.url("x.jpg"), archive, excluded=frozenset({"0" * 64}))
        assert isinstance(outcome, EncodedImage)
        assert (outcome.gone, outcome.image_source) == (None, "origin")
        assert not archive.requests

    def test_gives_the_earliest_capture(self, origin, archive):
        url = origin.url("status/404")
        archive.captures[url] = {LATE: "good/late.jpg", EARLY: "good/early.jpg"}
        outcome = rescue(url, archive)
        assert isinstance(outcome, EncodedImage) and outcome.data == image("early.jpg")

    @pytest.mark.parametrize(
        ("path", "reason"),
        [
            ("status/404", "http_404"),
            ("status/503", "http_503"),
            ("empty/x.jpg", "empty"),
            ("large/30000/x.jpg", "too_large"),
            ("header/X-Archive-Orig-X-Robots-Tag/noai/x.jpg", "disallowed"),
            ("hang", "timeout"),
            ("redirect/1/hang", "timeout"),
        ],
    )
    def test_that_fails_too_leaves_the_reason_of_the_origin(
        self, origin, archive, path, reason, monkeypatch
    ):
        monkeypatch.setattr(http_client, "BUSY", 0.1)
        url = origin.url("status/410")
        capture(archive, url, path)
        outcome = rescue(url, archive, fetch_timeout=0.3, max_image_bytes=20_000)
        assert detail(outcome)[0] == "http_410"
        assert detail(outcome)[1].startswith(f"410 Gone; fallback: {reason}: ")
        assert outcome.final_url == url

    def test_that_has_no_capture(self, origin, archive):
        outcome = rescue(origin.url("status/404"), archive)
        assert detail(outcome) == ("http_404", "404 Not Found; fallback: http_404: 404 Not Found")

    def test_that_has_a_capture_of_a_redirect_to_a_placeholder(self, origin, archive):
        url, target = origin.url("status/404"), "https://i.imgur.com/removed.png"
        location = archive.url(f"web/{EARLY}id_/{target}")
        head = f"HTTP/1.1 302 Found\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n"
        capture(archive, url, f"raw/{quote(head, safe='')}")
        assert "fallback: placeholder: " in detail(rescue(url, archive))[1]

    def test_that_is_down(self, origin):
        options = {"fallback": "wayback", "fallback_url": "http://127.0.0.1:1"}
        outcome = rescue(origin.url("status/404"), None, **options)
        assert detail(outcome)[0] == "http_404"
        assert "fallback: connect: " in detail(outcome)[1]

    def test_that_is_not_public(self, origin, monkeypatch):
        is_public = public_addresses.is_public
        monkeypatch.setattr(
            public_addresses,
            "is_public",
            lambda address: address == "127.0.0.1" or is_public(address),
        )
        options = {"fallback": "wayback", "fallback_url": "http://127.0.0.2"}
        url = origin.url("status/404")
        outcome = rescue(url, None, allow_private_addresses=False, **options)
        assert "fallback: blocked_address: " in detail(outcome)[1]

    def test_whose_robots_txt_disallows_it(self, origin, archive):
        url = origin.url("status/404")
        capture(archive, url)
        archive.aliases["/robots.txt"] = f"text/{quote('User-agent: *')}%0ADisallow:%20/web/"
        outcome = rescue(url, archive, obey_robots_txt=True)
        assert detail(outcome)[1].endswith("fallback: disallowed: robots.txt: Disallow: /web/")
        assert isinstance(rescue(url, archive), EncodedImage)

    @pytest.mark.parametrize("url", ["status/404?token=abc", "status/404?X-Amz-Signature=1f"])
    def test_does_not_get_credentials(self, origin, archive, url):
        outcome = rescue(origin.url(url), archive)
        assert "holds credentials" in detail(outcome)[1]
        outcome = rescue(origin.url("status/404", "me:pw@127.0.0.1"), archive)
        assert "holds credentials" in detail(outcome)[1]
        assert not archive.requests

    def test_is_not_asked_for_its_own_captures(self, archive):
        outcome = rescue(archive.url("web/2005id_/http://a.test/x.jpg"), archive)
        assert detail(outcome) == ("http_404", "404 Not Found")
        assert len(archive.requests) == 1


class TestPoliteness:
    def test_requests_are_spaced(self, origin, archive, monkeypatch):
        monkeypatch.setattr(web_client, "ARCHIVE_INTERVAL", 0.1)
        urls = [origin.url(f"status/404/{index}") for index in range(4)]
        for url in urls[:2]:
            capture(archive, url)
        outcomes = rescue_all([*urls, origin.url("x.jpg")], archive)
        assert [type(outcome) for outcome in outcomes[:4]] == [EncodedImage] * 2 + [Failure] * 2
        begun = [request.begun for request in archive.requests]
        assert len(begun) == 6  # redirects count
        assert begun[-1] - begun[0] > 0.4  # one may be noted late on a busy machine

    @pytest.mark.parametrize(("processes", "in_flight"), [(1, 4), (2, 2), (8, 1)])
    def test_few_are_in_flight(self, origin, archive, processes, in_flight):
        urls = [origin.url(f"status/404/{index}") for index in range(12)]
        for url in urls:
            capture(archive, url, "delay/0.05/good/x.jpg")
        outcomes = rescue_all(urls, archive, processes=processes)
        assert {type(outcome) for outcome in outcomes} == {EncodedImage}
        assert peak(archive.requests) == in_flight

    def test_the_interval_is_that_of_all_processes(self, origin, archive, monkeypatch):
        monkeypatch.setattr(web_client, "ARCHIVE_INTERVAL", 0.05)
        urls = [origin.url(f"status/404/{index}") for index in range(2)]
        rescue_all(urls, archive, processes=4)
        first, second = archive.requests
        assert second.begun - first.begun > 0.15

    def test_waiting_images_hold_no_slot(self, origin, archive, monkeypatch):
        monkeypatch.setattr(web_client, "ARCHIVE_INTERVAL", 0.1)
        urls = [origin.url(f"status/404/{index}") for index in range(4)]
        urls += [origin.url(f"{index}.jpg") for index in range(10)]
        rescue_all(urls, archive, fetch_concurrency=1)
        last = max(request.begun for request in origin.requests)
        assert last < sorted(request.begun for request in archive.requests)[2]

    def test_retry_after_pauses_all(self, origin, archive):
        urls = [origin.url(f"status/404/{index}") for index in range(3)]
        for url in urls:
            capture(archive, url)
        first = f"/web/19960101000000id_/{urls[0]}"
        archive.aliases[first] = f"retry-after/0.5/web/19960101000000id_/{urls[0]}"

        outcomes = rescue_all(urls, archive, host_concurrency=1)
        assert {type(outcome) for outcome in outcomes} == {EncodedImage}
        refused, *others = archive.requests
        assert refused.path == first
        assert min(request.begun for request in others) - refused.ended > 0.49

    @pytest.mark.parametrize("status", [429, 503])
    def test_a_busy_archive_pauses_all(self, origin, archive, monkeypatch, status):
        monkeypatch.setattr(http_client, "BUSY", 3600.0)
        urls = [origin.url(f"status/404/{index}") for index in range(5)]
        for url in urls:
            archive.aliases[f"/web/19960101000000id_/{url}"] = f"status/{status}"
        outcomes = rescue_all(urls, archive, host_concurrency=1)
        assert len(archive.requests) == 1
        details = [detail(outcome)[1] for outcome in outcomes]
        assert sum("for no requests for 3600 s" in text for text in details) >= 4

    def test_a_pause_that_is_too_long_ends_the_asking(self, origin, archive):
        urls = [origin.url(f"status/404/{index}") for index in range(5)]
        for url in urls:
            path = f"/web/19960101000000id_/{url}"
            archive.aliases[path] = "retry-after/3600/good/x.jpg"
        outcomes = rescue_all(urls, archive, host_concurrency=1)
        assert len(archive.requests) == 1
        details = [detail(outcome)[1] for outcome in outcomes]
        assert sum("for no requests for 3600 s" in text for text in details) == 4


class TestStoredCopies:
    @pytest.fixture
    def ref(self, origin, tmp_path) -> ImageRef:
        (tmp_path / "a.tar").write_bytes(b"header" + image("copy.jpg") + b"end")
        location = Extent(str(tmp_path / "a.tar"), 6, len(image("copy.jpg")))
        url = origin.url("status/404")
        return ImageRef("n1_1", url, fallback=StoredCopy(f"{tmp_path}/a.tar#n1_1.jpg", location))

    def test_go_before_the_archive(self, archive, ref):
        capture(archive, ref.url)
        outcome = rescue(ref, archive)
        assert isinstance(outcome, EncodedImage)
        assert ref.fallback
        assert (outcome.ref, outcome.data) == (ref, image("copy.jpg"))
        assert (outcome.final_url, outcome.image_source) == (ref.fallback.url, "fallback")
        assert outcome.gone == Problem("http_404", "404 Not Found")
        assert not archive.requests

    def test_are_not_read_for_what_is_there(self, origin, ref):
        present = ImageRef("n1_1", origin.url("x.jpg"), fallback=ref.fallback)
        outcome = rescue(present, None, fallback_images="a.tar")
        assert isinstance(outcome, EncodedImage) and outcome.data == image("x.jpg")

    def test_that_cannot_be_read_leave_it_to_the_archive(self, archive, ref):
        assert ref.fallback
        Path(ref.fallback.location.path).unlink()
        outcome = rescue(ref, archive)
        reason, text = detail(outcome)
        assert reason == "http_404"
        assert "; fallback: not_found: " in text
        assert text.endswith("; fallback: http_404: 404 Not Found")
        capture(archive, ref.url)
        assert isinstance(rescue(ref, archive), EncodedImage)

    def test_that_are_too_large(self, ref):
        outcome = rescue(ref, None, fallback_images="a.tar", max_image_bytes=100)
        assert "fallback: too_large: " in detail(outcome)[1]


@pytest.mark.parametrize(
    ("archive", "expected"),
    [
        ("https://web.archive.org", "https://web.archive.org/web/19960101000000id_/"),
        ("https://web.archive.org/", "https://web.archive.org/web/19960101000000id_/"),
        ("http://localhost:8080/web/", "http://localhost:8080/web/19960101000000id_/"),
        ("http://[::1]:8080/my/photos", "http://[::1]:8080/my/photos/19960101000000id_/"),
    ],
)
@pytest.mark.parametrize(
    "url", ["http://a.test:81/b%20c/?d=e&f", "https://a.test/?", "http://a.test//"]
)
def test_capture_url(archive, expected, url):
    assert str(capture_url(captures_of(archive), http_urls.parse(url))) == f"{expected}{url}"


def test_the_failure_of_a_rescued_image_is_that_of_its_origin():
    ref = ImageRef("", "http://a.test/x.jpg")
    rescued = EncodedImage(ref, b"x", 3, "http://b/", gone=Problem("dns", "no such name"))
    failure = rescued.fail("decode", Problem("not_an_image", "unknown format"))
    assert failure == Failure(
        ref,
        "fetch",
        "dns",
        "no such name; fallback: not_an_image: unknown format",
        3,
        "http://b/",
    )
