"""One image over HTTP: the deadline, the retries, and the manners. Knows asyncio, not Beam."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import dataclasses
import email.utils
import errno
import math
import random
import re
import time
from collections.abc import AsyncIterator, Sequence

import aiohttp
import yarl
from aiohttp.abc import AbstractResolver

from beam_pipeline import addresses, robots, urls
from beam_pipeline.config import (
    BACKOFF,
    HOST_STRIKES,
    MAX_REDIRECTS,
    PLACEHOLDER_URL,
    RETRY_DEADLINE,
    STRIKE_SPACING,
    Config,
)
from beam_pipeline.elements import EncodedImage, Failure, ImageRef

_REDIRECTS = (301, 302, 303, 307, 308)
_PASSING_STATUSES = (429, *range(500, 600))


# Too many open files, no memory: no image's fault, and no host's.
_FAULTS_OF_THE_MACHINE = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


MOST_WEIGHT = 32


class FetchError(Exception):
    """A try that brought no image."""

    def __init__(self, reason: str, detail: str, *, passes: bool = False, retry_after: float = 0):
        """Args:
        reason: As the README's table of failures has it.
        detail: For a person.
        passes: Another try may succeed.
        retry_after: Seconds that the server asked to wait.
        """
        # What servers say may hold bytes that are no text, which Python keeps as surrogates.
        detail = detail.encode(errors="replace").decode()
        super().__init__(reason, detail)
        self.reason, self.detail, self.passes, self.retry_after = reason, detail, passes, retry_after


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
        self._session = aiohttp.ClientSession(
            connector=addresses.make_connector(config.allow_private_addresses, config.fetch_concurrency, self._resolver),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"User-Agent": config.user_agent, "Accept": "image/*,*/*;q=0.5", "Accept-Encoding": "identity"},
            # The deadline is set around each request. A host that takes half of it to be found and connected to is down.
            timeout=aiohttp.ClientTimeout(total=None, connect=config.fetch_timeout / 2),
        )

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
            visit = _Visit([urls.parse(ref.url)])
        except urls.UrlError as error:
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
            async with asyncio.timeout(seconds), self._session.get(route[-1], allow_redirects=False) as response:
                host.strikes, host.given_up = 0, None
                if response.status in _REDIRECTS and "Location" in response.headers:
                    return _redirect(route, response.headers["Location"])
                if response.ok:
                    self._check_allowed(response)
                return await self._read(response)
        except (TimeoutError, aiohttp.ClientError, OSError, ValueError) as error:
            if getattr(getattr(error, "os_error", error), "errno", None) in _FAULTS_OF_THE_MACHINE:
                raise
            failure = self._explain(error)
            if failure.reason in ("dns", "connect") or isinstance(error, aiohttp.ConnectionTimeoutError):
                _strike(host, failure, began)
            raise failure from error

    def _check_allowed(self, response: aiohttp.ClientResponse) -> None:
        for tag in response.headers.getall("X-Robots-Tag", ()):
            if robots.disallows(tag, self._config.user_agent):
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
        if not length:
            raise FetchError("empty", "a body of 0 bytes")
        return b"".join(blocks)

    def _explain(self, error: Exception) -> FetchError:
        """Says in the terms of the table of failures what the client raised."""
        # The connector's errors repeat the host and tell how its own settings were.
        cause = getattr(error, "os_error", error)
        detail = str(cause) or type(cause).__name__
        if isinstance(cause, addresses.BlockedAddressError):
            return FetchError("blocked_address", detail)
        if isinstance(error, aiohttp.ConnectionTimeoutError):
            return FetchError("timeout", f"no connection within {self._config.fetch_timeout / 2:g} s", passes=True)
        if isinstance(error, TimeoutError):
            return FetchError("timeout", f"not done within {self._config.fetch_timeout:g} s", passes=True)
        if isinstance(error, aiohttp.ClientConnectorDNSError):
            return FetchError("dns", detail, passes=True)
        if isinstance(error, (aiohttp.ClientSSLError, aiohttp.ServerFingerprintMismatch)):
            return FetchError("tls", detail)
        if isinstance(error, aiohttp.ClientConnectorError):
            return FetchError("connect", detail, passes=True)
        if isinstance(error, (aiohttp.InvalidURL, ValueError)):
            return FetchError("invalid_url", detail)
        return FetchError("connection_lost", detail, passes=True)


def weigh(data: bytes) -> int:
    """How many of the images that may wait to be dealt with a body counts for: one for each MiB."""
    return min(1 + (len(data) >> 20), MOST_WEIGHT)


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
        target = urls.join(route[-1], location)
    except urls.UrlError as error:
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
