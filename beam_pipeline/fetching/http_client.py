"""HTTP client: deadlines, retries, redirects, and limits per host.

The module uses asyncio and does not depend on Beam.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import TypeVar

import aiohttp
import yarl
from aiohttp.abc import AbstractResolver

from beam_pipeline.config import BACKOFF, RETRY_DEADLINE, Config
from beam_pipeline.fetching import errors, responses, session
from beam_pipeline.fetching.circuit_breaker import CircuitBreaker
from beam_pipeline.fetching.errors import FetchError
from beam_pipeline.fetching.pace import Pace, WaitCounter

# Seconds without a request to a host with limits of its own after a 429 or 503 that has no
# Retry-After.
BUSY = 60.0

T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class Admission:
    """How a URL may be requested.

    Attributes:
      pace: Spaces the requests to its host; None if they need not be.
      reservation: Why the site reserves the URL, unless the response says otherwise; None if it
        does not.
    """

    pace: Pace | None = None
    reservation: str | None = None


# Awaited before each request, with its URL. Raises FetchError, not retryable, to prevent it.
Admit = Callable[[yarl.URL], Awaitable[Admission]]


async def admit_all(unused_url: yarl.URL) -> Admission:
    return Admission()


_Name = tuple[str | None, int | None]


def _name(url: yarl.URL) -> _Name:
    """Return the host and port of a URL."""
    return url.raw_host, url.port


@dataclasses.dataclass
class _Host:
    """State of one host."""

    slots: asyncio.Semaphore
    users: int = 0
    breaker: CircuitBreaker = dataclasses.field(default_factory=CircuitBreaker)


@dataclasses.dataclass
class Visit:
    """State of a document that is being fetched.

    Attributes:
      route: The document's URL and the redirects of the last attempt.
      attempts: Number of attempts.
      waited: Total time waited between attempts, in seconds.
      waits: Counts the document while it waits without a slot.
    """

    route: list[yarl.URL]
    attempts: int = 0
    waited: float = 0.0
    waits: WaitCounter = dataclasses.field(default_factory=WaitCounter)


class HttpClient:
    """Fetches documents over HTTP.

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
        self._config, self._slots = config, slots
        self._hosts: dict[_Name, _Host] = {}
        self._limits: dict[_Name, tuple[int, Pace]] = {}
        self._resolver = resolver or aiohttp.AsyncResolver()
        self._session = session.open_session(config, self._resolver)

    def limit(self, url: yarl.URL, concurrency: int, pace: Pace) -> None:
        """Limit the requests to the host of a URL further: those in flight, and their pace.

        A 429 or 503 pauses all of them, for its `Retry-After` or for `BUSY` seconds.
        """
        self._limits[_name(url)] = concurrency, pace

    async def close(self) -> None:
        await self._session.close()
        await self._resolver.close()

    async def get(
        self,
        visit: Visit,
        read: Callable[[aiohttp.ClientResponse, Admission], Awaitable[T]],
        admit: Admit = admit_all,
        keep: Callable[[T], Awaitable[None]] | None = None,
    ) -> T:
        """Fetch a document, with at most `--fetch_attempts` attempts.

        Args:
          visit: The document; its state is updated.
          read: Takes a response with a status of 2xx; returns what is made of it.
          admit: See `Admit`.
          keep: Awaited with that result before the document's slot is released.

        Returns:
          The result of `read`.

        Raises:
          FetchError: The last attempt failed.
        """
        while True:
            try:
                return await self._try(visit, read, admit, keep)
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
                    raise
            with visit.waits.waiting():
                await asyncio.sleep(wait)

    async def _try(
        self,
        visit: Visit,
        read: Callable[[aiohttp.ClientResponse, Admission], Awaitable[T]],
        admit: Admit,
        keep: Callable[[T], Awaitable[None]] | None,
    ) -> T:
        """Follow a URL and its redirects to the document within the deadline.

        The time spent waiting for other documents does not count towards the deadline.
        """
        del visit.route[1:]
        left = self._config.fetch_timeout
        while True:
            with visit.waits.waiting():
                admission = await admit(visit.route[-1])
            async with self._turn(visit, admission.pace) as host:
                began = time.monotonic()
                visit.attempts += len(visit.route) == 1
                answer = await self._ask(visit.route, host, left, read, admission)
                if not isinstance(answer, yarl.URL):
                    if keep:
                        await keep(answer)
                    return answer
            left -= time.monotonic() - began
            visit.route.append(answer)

    @contextlib.asynccontextmanager
    async def _turn(self, visit: Visit, pace: Pace | None) -> AsyncIterator[_Host]:
        """Hold a slot, and one of the last URL's host; yield the state of that host.

        Only a slot of the host is held while its pace is waited for.
        """
        _, own_pace = self._limits.get(_name(visit.route[-1]), (0, None))
        if own_pace and pace:
            own_pace.slow_down(pace.interval)
        pace = own_pace or pace
        async with contextlib.AsyncExitStack() as held:
            with visit.waits.waiting() if pace else contextlib.nullcontext():
                host = await held.enter_async_context(self._host_of(visit.route[-1]))
                host.breaker.check()
                await (pace.acquire(self._slots) if pace else self._slots.acquire())
                held.callback(self._slots.release)
            host.breaker.check()
            yield host

    @contextlib.asynccontextmanager
    async def _host_of(self, url: yarl.URL) -> AsyncIterator[_Host]:
        """Hold one of the slots of a URL's host.

        Hosts without users and failures are removed, because a list may have millions of hosts.

        Yields:
          The host's state.
        """
        name = _name(url)
        if name not in self._hosts:
            concurrency, _ = self._limits.get(name, (self._config.host_concurrency, None))
            slots = asyncio.Semaphore(min(concurrency, self._config.host_concurrency))
            self._hosts[name] = _Host(slots)
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
        self,
        route: Sequence[yarl.URL],
        host: _Host,
        seconds: float,
        read: Callable[[aiohttp.ClientResponse, Admission], Awaitable[T]],
        admission: Admission,
    ) -> T | yarl.URL:
        """Request the last URL of a route.

        Args:
          route: The document's URL and the redirects so far.
          host: The host of the last URL.
          seconds: Time left until the deadline.
          read, admission: See `get`.

        Returns:
          The result of `read`, or the URL of a redirect.

        Raises:
          FetchError: The request failed.
        """
        began = time.monotonic()
        try:
            async with asyncio.timeout(seconds), await self._get(route[-1]) as response:
                host.breaker.record_success()
                if target := responses.find_redirect(route, response):
                    return target
                self._check_status(route[-1], response)
                return await read(response, admission)
        except (TimeoutError, aiohttp.ClientError, OSError, ValueError) as error:
            if errors.is_fault_of_the_machine(error):
                raise
            failure = errors.explain(error, self._config.fetch_timeout)
            if failure.unreachable:
                host.breaker.record_failure(failure, began)
            raise failure from error

    def _check_status(self, url: yarl.URL, response: aiohttp.ClientResponse) -> None:
        try:
            responses.check_status(response)
        except FetchError as error:
            if limit := self._limits.get(_name(url)):
                is_busy = response.status in (429, 503)
                limit[1].pause(error.retry_after or (BUSY if is_busy else 0.0))
            raise

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
