"""HTTP client for images: deadlines, retries and limits per host.

The module uses asyncio and does not depend on Beam.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import dataclasses
import email.utils
import random
import re
import time
import zlib
from collections.abc import AsyncIterator, Sequence

import aiohttp
import yarl
from aiohttp.abc import AbstractResolver

from beam_pipeline.config import (
    BACKOFF,
    MAX_REDIRECTS,
    PLACEHOLDER_URL,
    RETRY_DEADLINE,
    Config,
)
from beam_pipeline.elements import EncodedImage, Failure, ImageRef
from beam_pipeline.fetching import errors, http_urls, robots_tag, session
from beam_pipeline.fetching.circuit_breaker import CircuitBreaker
from beam_pipeline.fetching.errors import FetchError

_REDIRECTS = (301, 302, 303, 307, 308)
_RETRYABLE_STATUSES = (429, *range(500, 600))

MAX_COST = 32


@dataclasses.dataclass
class _Host:
    """State of one host."""

    slots: asyncio.Semaphore
    users: int = 0
    breaker: CircuitBreaker = dataclasses.field(default_factory=CircuitBreaker)


@dataclasses.dataclass
class _Visit:
    """State of an image that is being fetched.

    Attributes:
      route: The image's URL and the redirects of the last attempt.
      attempts: Number of attempts.
      waited: Total time waited between attempts, in seconds.
    """

    route: list[yarl.URL]
    attempts: int = 0
    waited: float = 0.0


class WebClient:
    """Fetches images over HTTP.

    Create, use and close a client within one event loop.
    """

    def __init__(
        self, config: Config, slots: asyncio.Semaphore, resolver: AbstractResolver | None = None
    ):
        """Initialize the client.

        Args:
          config: The options.
          slots: Held while a request is in flight.
          resolver: Resolves host names. The default queries the system's name servers without
            threads, because a deadline cannot end a thread.
        """
        self._config, self._slots, self._reserving = config, slots, asyncio.Lock()
        self._hosts: dict[tuple[str | None, int | None], _Host] = collections.defaultdict(
            lambda: _Host(asyncio.Semaphore(config.host_concurrency))
        )
        self._resolver = resolver or aiohttp.AsyncResolver()
        self._session = session.open_session(config, self._resolver)

    async def close(self) -> None:
        await self._session.close()
        await self._resolver.close()

    async def fetch(self, ref: ImageRef, budget: asyncio.Semaphore) -> EncodedImage | Failure:
        """Fetch one image, with at most `--fetch_attempts` attempts.

        Errors that a server or the network can cause are returned as a Failure, never raised.

        Args:
          ref: The image.
          budget: Limit of fetched images in memory. It is acquired `cost(body)` times for a fetched
            image, before the image's slot is released. The consumer of the image releases it.

        Returns:
          The image, or the failure of its last attempt.
        """
        try:
            visit = _Visit([http_urls.parse(ref.url)])
        except http_urls.UrlError as error:
            return Failure(ref, "fetch", error.reason, str(error))
        while True:
            try:
                return EncodedImage(
                    ref, await self._try(visit, budget), visit.attempts, str(visit.route[-1])
                )
            except FetchError as error:
                wait = max(
                    error.retry_after,
                    BACKOFF * 2 ** (visit.attempts - 1) * random.uniform(0.5, 1.5),
                )
                # Only these waits count. The server does not cause the wait for a slot, which
                # is long on a slow network.
                visit.waited += wait
                if (
                    not error.retryable
                    or visit.attempts >= self._config.fetch_attempts
                    or visit.waited > RETRY_DEADLINE
                ):
                    return Failure(
                        ref,
                        "fetch",
                        error.reason,
                        error.detail,
                        visit.attempts,
                        str(visit.route[-1]),
                    )
            except Exception as error:
                error.add_note(f"while fetching {ref.url}")
                raise
            await asyncio.sleep(wait)

    async def _try(self, visit: _Visit, budget: asyncio.Semaphore) -> bytes:
        """Follow a URL and its redirects to the image within the deadline.

        The time spent waiting for other images does not count towards the deadline.
        """
        del visit.route[1:]
        left = self._config.fetch_timeout
        while True:
            async with self._host_of(visit.route[-1]) as host, self._slots:
                host.breaker.check()
                began = time.monotonic()
                visit.attempts += len(visit.route) == 1
                answer = await self._ask(visit.route, host, left)
                if isinstance(answer, bytes):
                    await self.reserve(budget, answer)
                    return answer
            left -= time.monotonic() - began
            visit.route.append(answer)

    async def reserve(self, budget: asyncio.Semaphore, data: bytes) -> None:
        """Acquire `budget` `cost(data)` times for a body.

        Only one caller acquires at a time. Otherwise several callers could deadlock, each waiting
        for what the others hold.
        """
        async with self._reserving:
            for _ in range(cost(data)):
                await budget.acquire()

    @contextlib.asynccontextmanager
    async def _host_of(self, url: yarl.URL) -> AsyncIterator[_Host]:
        """Hold one of the slots of a URL's host.

        Hosts without users and failures are removed, because a list may have millions of hosts.

        Yields:
          The host's state.
        """
        name = (url.raw_host, url.port)
        host = self._hosts[name]
        host.users += 1
        try:
            async with host.slots:
                yield host
        finally:
            host.users -= 1
            if not (host.users or host.breaker.failures):
                del self._hosts[name]

    async def _ask(
        self, route: Sequence[yarl.URL], host: _Host, seconds: float
    ) -> bytes | yarl.URL:
        """Request the last URL of a route.

        Args:
          route: The image's URL and the redirects so far.
          host: The host of the last URL.
          seconds: Time left until the deadline.

        Returns:
          The body, or the URL of a redirect.

        Raises:
          FetchError: The request failed.
        """
        began = time.monotonic()
        try:
            async with asyncio.timeout(seconds), await self._get(route[-1]) as response:
                host.breaker.record_success()
                if response.status in _REDIRECTS and "Location" in response.headers:
                    return _redirect(route, response.headers["Location"])
                if response.ok:
                    self._check_allowed(response)
                return await self._read(response)
        except (TimeoutError, aiohttp.ClientError, OSError, ValueError) as error:
            if errors.is_fault_of_the_machine(error):
                raise
            failure = errors.explain(error, self._config.fetch_timeout)
            if failure.reason in ("dns", "connect") or isinstance(
                error, aiohttp.ConnectionTimeoutError
            ):
                host.breaker.record_failure(failure, began)
            raise failure from error

    async def _get(self, url: yarl.URL) -> aiohttp.ClientResponse:
        """Request a URL; repeat within the same attempt if a reused connection is closed.

        A server may close an idle connection at any moment (RFC 9112, 9.3.1). Each such close
        leaves one idle connection fewer, so the client finally opens a new one.
        """
        while True:
            connection = session.Connection()
            try:
                return await self._session.get(
                    url, allow_redirects=False, trace_request_ctx=connection
                )
            except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError):
                if not connection.reused:
                    raise

    def _check_allowed(self, response: aiohttp.ClientResponse) -> None:
        for tag in response.headers.getall("X-Robots-Tag", ()):
            if robots_tag.disallows(tag, self._config.user_agent):
                raise FetchError("disallowed", f"X-Robots-Tag: {tag}")

    async def _read(self, response: aiohttp.ClientResponse) -> bytes:
        if not 200 <= response.status < 300:
            retryable = response.status in _RETRYABLE_STATUSES
            detail = f"{response.status} {response.reason or ''}".strip()
            retry_after = _seconds(response.headers.get("Retry-After", ""))
            raise FetchError(
                f"http_{response.status}", detail, retryable=retryable, retry_after=retry_after
            )
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


def _redirect(route: Sequence[yarl.URL], location: str) -> yarl.URL:
    if len(route) > MAX_REDIRECTS:
        raise FetchError("too_many_redirects", f"more than {MAX_REDIRECTS}")
    try:
        target = http_urls.join(route[-1], location)
    except http_urls.UrlError as error:
        raise FetchError(error.reason, f"redirected to {location!r}: {error}") from error
    if re.fullmatch(PLACEHOLDER_URL, str(target)):
        raise FetchError("placeholder", f"redirected to {target}")
    return target


def _seconds(retry_after: str) -> float:
    """Return the seconds to wait by a Retry-After header (RFC 9110, 10.2.3).

    Args:
      retry_after: Seconds or a date; anything else counts as 0.
    """
    with contextlib.suppress(ValueError):
        return max(0.0, float(retry_after))
    with contextlib.suppress(ValueError, TypeError, OverflowError):
        return max(0.0, email.utils.parsedate_to_datetime(retry_after).timestamp() - time.time())
    return 0.0
