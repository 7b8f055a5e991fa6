"""Client for images: ImageRef -> EncodedImage over HTTP.

The module uses asyncio and does not depend on Beam.
"""

from __future__ import annotations

import asyncio
import zlib

import aiohttp
import yarl
from aiohttp.abc import AbstractResolver

from beam_pipeline.config import ARCHIVE_CONCURRENCY, ARCHIVE_INTERVAL, Config
from beam_pipeline.elements import EncodedImage, Failure, ImageRef
from beam_pipeline.fetching import http_urls, robots_tag, tdm_reservation
from beam_pipeline.fetching.errors import FetchError
from beam_pipeline.fetching.http_client import (
    Admission,
    HttpClient,
    Visit,
    admit_all,
)
from beam_pipeline.fetching.pace import Pace, WaitCounter
from beam_pipeline.fetching.site_rules import SiteRules

MAX_COST = 32


class Bundle:
    """What the images of a bundle share.

    Attributes:
      budget: Limit of fetched images in memory.
      waits: Counts the images that wait without a slot.
      excluded: The sha256 of bodies that are not photographs, in hex.
    """

    def __init__(self, size: int, excluded: frozenset[str] = frozenset()):
        """Initialize the bundle; `size` is the limit, at least `MAX_COST`."""
        self.budget, self.waits, self.excluded = asyncio.Semaphore(size), WaitCounter(), excluded

    def release(self, data: bytes) -> None:
        """Release what `WebClient.reserve` acquired for a body."""
        for _ in range(cost(data)):
            self.budget.release()


class WebClient:
    """Fetches images over HTTP.

    Create, use and close a client within one event loop.
    """

    def __init__(
        self,
        config: Config,
        slots: asyncio.Semaphore,
        resolver: AbstractResolver | None = None,
        processes: int = 1,
    ):
        """Initialize the client.

        Args:
          config: The options.
          slots: Held while a request is in flight.
          resolver: See `HttpClient`.
          processes: Number of processes that fetch images of the same hosts.
        """
        self._config, self._reserving = config, asyncio.Lock()
        self._http = HttpClient(config, slots, resolver)
        if config.fallback != "none":
            self._http.limit(
                http_urls.parse(config.fallback_url),
                max(1, ARCHIVE_CONCURRENCY // processes),
                Pace(ARCHIVE_INTERVAL * processes),
            )
        self._rules = (
            SiteRules(self._http, config.user_agent, processes) if config.obey_robots_txt else None
        )

    async def close(self) -> None:
        await self._http.close()

    async def fetch(self, ref: ImageRef, bundle: Bundle) -> EncodedImage | Failure:
        """Fetch one image, with at most `--fetch_attempts` attempts.

        Errors that a server or the network can cause are returned as a Failure, never raised.

        Args:
          ref: The image.
          bundle: Its budget is acquired `cost(body)` times for a fetched image, before the image's
            slot is released. The consumer of the image releases it.

        Returns:
          The image, or the failure of its last attempt.
        """
        try:
            url = http_urls.parse(ref.url)
        except http_urls.UrlError as error:
            return Failure(ref, "fetch", error.reason, str(error))
        return await self.fetch_from(ref, url, bundle)

    async def fetch_from(
        self, ref: ImageRef, url: yarl.URL, bundle: Bundle
    ) -> EncodedImage | Failure:
        """Fetch one image as `fetch` does, from a URL that may not be its own."""
        visit = Visit([url], waits=bundle.waits)
        admit = self._rules.admit if self._rules else admit_all
        try:
            body = await self._http.get(
                visit, self._read, admit, lambda body: self.reserve(bundle, body)
            )
        except FetchError as error:
            return Failure(
                ref, "fetch", error.reason, error.detail, visit.attempts, str(visit.route[-1])
            )
        except Exception as error:
            error.add_note(f"while fetching {ref.url}")
            raise
        return EncodedImage(ref, body, visit.attempts, str(visit.route[-1]))

    async def reserve(self, bundle: Bundle, data: bytes) -> None:
        """Acquire the budget of a bundle `cost(data)` times for a body.

        Only one caller acquires at a time. Otherwise several callers could deadlock, each waiting
        for what the others hold.
        """
        async with self._reserving:
            for _ in range(cost(data)):
                await bundle.budget.acquire()

    async def _read(self, response: aiohttp.ClientResponse, admission: Admission) -> bytes:
        self._check_allowed(response, admission)
        limit = self._config.max_image_bytes
        if (response.content_length or 0) > limit:
            raise FetchError("too_large", f"{response.content_length} bytes, {limit} are allowed")
        blocks, length = [], 0
        async for block in response.content.iter_any():
            blocks.append(block)
            length += len(block)
            if length > limit:
                raise FetchError("too_large", f"more than the {limit} bytes that are allowed")
        body = b"".join(blocks)
        if body and response.headers.get("Content-Encoding", "").strip().lower() == "x-gzip":
            body = _decompress(body, limit)
        if not body:
            raise FetchError("empty", "a body of 0 bytes")
        return body

    def _check_allowed(self, response: aiohttp.ClientResponse, admission: Admission) -> None:
        for name in robots_tag.HEADERS:
            for tag in response.headers.getall(name, ()):
                if robots_tag.disallows(tag, self._config.user_agent):
                    raise FetchError("disallowed", f"{name}: {tag}")
        if self._config.obey_robots_txt and (
            reason := tdm_reservation.check_headers(response.headers, admission.reservation)
        ):
            raise FetchError("disallowed", reason)


def _decompress(data: bytes, limit: int) -> bytes:
    """Decompress a body with Content-Encoding x-gzip.

    aiohttp decompresses gzip, but does not recognize its old name, x-gzip.

    Args:
      data: The compressed body.
      limit: Maximum size of the decompressed body, in bytes.
    """
    decoder = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
    try:
        body = decoder.decompress(data, limit + 1)
    except zlib.error as error:
        raise aiohttp.ClientPayloadError(f"not valid x-gzip: {error}") from error
    if len(body) > limit:
        raise FetchError("too_large", f"more than the {limit} bytes that are allowed")
    if not decoder.eof:
        raise aiohttp.ClientPayloadError(f"the gzip body ends early, after {len(data)} bytes")
    return body


def cost(data: bytes) -> int:
    """Return how many units of the budget for fetched images a body takes.

    A body takes one unit, and one more per full MiB, up to `MAX_COST`.
    """
    return min(1 + (len(data) >> 20), MAX_COST)
