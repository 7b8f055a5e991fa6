"""One image over HTTP: the deadline, the retries, and the manners. Knows asyncio, not Beam."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import dataclasses
import email.utils
import math
import random
import re
import time
import zlib
from collections.abc import AsyncIterator, Sequence

import aiohttp
import yarl
from aiohttp.abc import AbstractResolver

from beam_pipeline.config import BACKOFF, HOST_STRIKES, MAX_REDIRECTS, PLACEHOLDER_URL, RETRY_DEADLINE, STRIKE_SPACING, Config
from beam_pipeline.elements import EncodedImage, Failure, ImageRef
from beam_pipeline.fetching import errors, http_urls, robots_tag, session
from beam_pipeline.fetching.errors import FetchError

_REDIRECTS = (301, 302, 303, 307, 308)
_PASSING_STATUSES = (429, *range(500, 600))

MAX_WEIGHT = 32


@dataclasses.dataclass
class _Host:
    """What is known of one host."""

    slots: asyncio.Semaphore
    users: int = 0
    strikes: int = 0
    struck: float = -math.inf  # when it was last
    given_up: tuple[str, str] | None = None  # the reason and the detail with which its images fail


@dataclasses.dataclass
class _Visit:
    """An image that is being fetched: where its URL has led in the last try, how many there were, seconds between them."""

    route: list[yarl.URL]
    attempts: int = 0
    waited: float = 0.0


class WebClient:
    """Fetches images over HTTP. To be made, used and closed within one event loop."""

    def __init__(self, config: Config, slots: asyncio.Semaphore, resolver: AbstractResolver | None = None):
        """Args:
        config: The options.
        slots: Held while a request is in flight.
        resolver: Answers for host names; the system's name servers by default, asked without threads, which no deadline ends.
        """
        self._config, self._slots, self._taking = config, slots, asyncio.Lock()
        self._hosts: dict[tuple[str | None, int | None], _Host] = collections.defaultdict(
            lambda: _Host(asyncio.Semaphore(config.host_concurrency))
        )
        self._resolver = resolver or aiohttp.AsyncResolver()
        self._session = session.open_session(config, self._resolver)

    async def close(self) -> None:
        await self._session.close()
        await self._resolver.close()

    async def fetch(self, ref: ImageRef, room: asyncio.Semaphore) -> EncodedImage | Failure:
        """Fetches one image, with as many tries as it may take. Raises nothing that the web could be the cause of.

        Args:
          ref: The image.
          room: Acquired as often as `weigh` tells for an image that was fetched, before its slot is given back: who deals with
            it releases it.
        """
        try:
            visit = _Visit([http_urls.parse(ref.url)])
        except http_urls.UrlError as error:
            return Failure(ref, "fetch", error.reason, str(error))
        while True:
            try:
                return EncodedImage(ref, await self._try(visit, room), visit.attempts, str(visit.route[-1]))
            except FetchError as error:
                wait = max(error.retry_after, BACKOFF * 2 ** (visit.attempts - 1) * random.uniform(0.5, 1.5))
                # Only these waits: to queue for a slot, behind a slow network, is not the server's fault.
                visit.waited += wait
                if not error.passes or visit.attempts >= self._config.fetch_attempts or visit.waited > RETRY_DEADLINE:
                    return Failure(ref, "fetch", error.reason, error.detail, visit.attempts, str(visit.route[-1]))
            except Exception as error:
                error.add_note(f"while fetching {ref.url}")
                raise
            await asyncio.sleep(wait)

    async def _try(self, visit: _Visit, room: asyncio.Semaphore) -> bytes:
        """Follows a URL to its image, within the deadline, which does not run while others are waited for."""
        del visit.route[1:]
        left = self._config.fetch_timeout
        while True:
            async with self._host_of(visit.route[-1]) as host, self._slots:
                if host.given_up:
                    raise FetchError(*host.given_up)
                began = time.monotonic()
                visit.attempts += len(visit.route) == 1
                answer = await self._ask(visit.route, host, left)
                if isinstance(answer, bytes):
                    await self.take(room, answer)
                    return answer
            left -= time.monotonic() - began
            visit.route.append(answer)

    async def take(self, room: asyncio.Semaphore, data: bytes) -> None:
        """Waits for room for a body. One does at a time, or several could each wait for what the others hold."""
        async with self._taking:
            for _ in range(weigh(data)):
                await room.acquire()

    @contextlib.asynccontextmanager
    async def _host_of(self, url: yarl.URL) -> AsyncIterator[_Host]:
        """One of the places at a host. Forgets hosts of which there is nothing to remember: a list may have millions."""
        name = (url.raw_host, url.port)
        host = self._hosts[name]
        host.users += 1
        try:
            async with host.slots:
                yield host
        finally:
            host.users -= 1
            if not (host.users or host.strikes):
                del self._hosts[name]

    async def _ask(self, route: Sequence[yarl.URL], host: _Host, seconds: float) -> bytes | yarl.URL:
        """Makes one request, for the last URL of a route. Gives a body, or where it was redirected to."""
        began = time.monotonic()
        try:
            async with asyncio.timeout(seconds), await self._get(route[-1]) as response:
                host.strikes, host.given_up = 0, None
                if response.status in _REDIRECTS and "Location" in response.headers:
                    return _redirect(route, response.headers["Location"])
                if response.ok:
                    self._check_allowed(response)
                return await self._read(response)
        except (TimeoutError, aiohttp.ClientError, OSError, ValueError) as error:
            if errors.is_fault_of_the_machine(error):
                raise
            failure = errors.explain(error, self._config.fetch_timeout)
            if failure.reason in ("dns", "connect") or isinstance(error, aiohttp.ConnectionTimeoutError):
                _strike(host, failure, began)
            raise failure from error

    async def _get(self, url: yarl.URL) -> aiohttp.ClientResponse:
        """Makes a request; again, within the same try, if a kept connection ends as it is used.

        A server may close an idle connection at any moment (RFC 9112, 9.3.1). Each such end leaves
        one idle connection less, so that a new one is made at last.
        """
        while True:
            connection = session.Connection()
            try:
                return await self._session.get(url, allow_redirects=False, trace_request_ctx=connection)
            except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError):
                if not connection.reused:
                    raise

    def _check_allowed(self, response: aiohttp.ClientResponse) -> None:
        for tag in response.headers.getall("X-Robots-Tag", ()):
            if robots_tag.disallows(tag, self._config.user_agent):
                raise FetchError("disallowed", f"X-Robots-Tag: {tag}")

    async def _read(self, response: aiohttp.ClientResponse) -> bytes:
        if not 200 <= response.status < 300:
            passes = response.status in _PASSING_STATUSES
            detail = f"{response.status} {response.reason or ''}".strip()
            retry_after = _seconds(response.headers.get("Retry-After", ""))
            raise FetchError(f"http_{response.status}", detail, passes=passes, retry_after=retry_after)
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
    """Decompress a gzip body, which aiohttp does unless it is called by its old name, x-gzip."""
    decoder = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
    try:
        body = decoder.decompress(data, limit + 1)
    except zlib.error as error:
        raise aiohttp.ClientPayloadError(f"not valid x-gzip: {error}") from error
    if len(body) > limit:
        raise FetchError("too_large", f"more than the {limit} bytes that are allowed")
    if not decoder.eof:
        raise aiohttp.ClientPayloadError(f"x-gzip that ends early, after {len(data)} bytes")
    return body


def weigh(data: bytes) -> int:
    """How many of the images that may wait to be dealt with a body counts for: one for each MiB."""
    return min(1 + (len(data) >> 20), MAX_WEIGHT)


def _strike(host: _Host, failure: FetchError, began: float) -> None:
    """Counts a failure against a host."""
    if began < host.struck + STRIKE_SPACING:
        return
    host.strikes, host.struck = host.strikes + 1, time.monotonic()
    if host.strikes >= HOST_STRIKES:
        detail = f"{failure.detail}; the host was given up after {host.strikes} such tries in a row"
        host.given_up = (failure.reason, detail)


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
    """Reads a Retry-After header, seconds or a date (RFC 9110, 10.2.3); 0 if it is neither."""
    with contextlib.suppress(ValueError):
        return max(0.0, float(retry_after))
    with contextlib.suppress(ValueError, TypeError, OverflowError):
        return max(0.0, email.utils.parsedate_to_datetime(retry_after).timestamp() - time.time())
    return 0.0
