"""The rules of sites for robots: robots.txt, and reservations of data mining.

A site is a scheme, a host and a port. Its rules are fetched once in a process, before its first
image.
"""

from __future__ import annotations

import asyncio
import collections
import dataclasses
import math
import re
import time
import weakref
from collections.abc import Callable
from typing import Any, TypeVar

import aiohttp
import yarl

from beam_pipeline.fetching import path_rules, robots_txt, tdm_reservation
from beam_pipeline.fetching.errors import FetchError
from beam_pipeline.fetching.http_client import Admission, HttpClient, Visit
from beam_pipeline.fetching.pace import Pace
from beam_pipeline.fetching.path_rules import PathRules
from beam_pipeline.fetching.tdm_reservation import Reservations

# Longest Crawl-delay that is obeyed by waiting, in seconds.
MAX_CRAWL_DELAY = 30.0
# How long rules are valid (RFC 9309, 2.4), how long it is that a site has none, and how long until
# a tdmrep.json that could not be reached is asked for again, in seconds.
VALID, UNREACHABLE, RETRY_RESERVATIONS = 24 * 3600.0, 60.0, 600.0

# Characters of the rules in memory, in which each takes 10 to 100 bytes, and number of sites.
_MAX_SIZE, _MAX_SITES = 2 << 20, 20_000
_SMALL_FILE = 10_000  # bytes that are parsed within the event loop
# Failures after which a site counts as one without the file (RFC 9309, 2.3.1.2 and 2.3.1.3).
# Not 429: a site that is busy has not said that it has none.
_MISSING = re.compile(
    "http_3.*|http_4(?!29).*|too_many_redirects|invalid_url|unsupported_scheme|placeholder"
)


T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class Site:
    """What a site allows.

    Attributes:
      robots: The rules of robots.txt.
      reservations: The reservations of tdmrep.json.
      pace: Spaces the requests by Crawl-delay; None without one.
      refusal: Reason and detail of the failure of all its images; None if they may be requested.
      valid_until: Time on the monotonic clock, in seconds.
      retry_at: The same for another request for tdmrep.json.
    """

    robots: PathRules = dataclasses.field(default_factory=PathRules)
    reservations: Reservations = dataclasses.field(default_factory=Reservations)
    pace: Pace | None = None
    refusal: tuple[str, str] | None = None
    valid_until: float = dataclasses.field(default_factory=lambda: time.monotonic() + VALID)
    retry_at: float = math.inf

    @property
    def size(self) -> int:
        """Number of characters of its rules."""
        return self.robots.size + self.reservations.rules.size


class SiteRules:
    """The rules of the sites of a process."""

    def __init__(self, http: HttpClient, user_agent: str, processes: int):
        """Initialize the rules.

        Args:
          http: Fetches them.
          user_agent: Our User-Agent header.
          processes: Number of processes that share the pace of each site.
        """
        self._http, self._user_agent, self._processes = http, user_agent, processes
        # The least recently used first. Tasks, so that all images of a site wait for the same one.
        self._sites: collections.OrderedDict[yarl.URL, asyncio.Task[Site]]
        self._sites = collections.OrderedDict()
        self._sizes: dict[yarl.URL, int] = {}
        self._total = 0
        # Images that wait hold their pace longer than the rules are kept.
        self._paces: weakref.WeakValueDictionary[yarl.URL, Pace] = weakref.WeakValueDictionary()
        self._thinking = asyncio.Lock()

    async def admit(self, url: yarl.URL) -> Admission:
        """Return how a URL may be requested.

        Raises:
          FetchError: It may not, as `disallowed`; or its site cannot be reached.
        """
        site = await self._find(url.origin())
        if site.refusal:
            raise FetchError(*site.refusal)
        path = url.raw_path
        work = max(site.robots.work(path), site.reservations.rules.work(path))
        is_small = work <= path_rules.SMALL_WORK
        rule, reservation = await self._compute(is_small, _find_rules, site, path)
        if rule:
            raise FetchError("disallowed", f"robots.txt: {rule}")
        return Admission(site.pace, reservation)

    async def _find(self, origin: yarl.URL) -> Site:
        task = self._sites.get(origin)
        if task is None or (task.done() and _is_outdated(task)):
            self._remove(origin)
            task = self._sites[origin] = asyncio.create_task(self._load(origin, task))
            task.add_done_callback(lambda task: self._count(origin, task))
        self._sites.move_to_end(origin)
        # An image that is cancelled leaves the task to the others.
        return await asyncio.shield(task)

    def _count(self, origin: yarl.URL, task: asyncio.Task[Site]) -> None:
        """Note the size of a site that is loaded, and remove others if they are too many."""
        succeeded = _succeeded(task)
        if self._sites.get(origin) is not task:
            return
        if not succeeded:  # by a fault of the machine, which ends the run
            self._remove(origin)
            return
        self._sizes[origin] = task.result().size
        self._total += task.result().size
        while self._total > _MAX_SIZE or len(self._sites) > _MAX_SITES:
            self._remove(next(iter(self._sites)))

    def _remove(self, origin: yarl.URL) -> None:
        self._sites.pop(origin, None)
        self._total -= self._sizes.pop(origin, 0)

    async def _load(self, origin: yarl.URL, earlier: asyncio.Task[Site] | None) -> Site:
        if earlier and _succeeded(earlier) and earlier.result().valid_until > time.monotonic():
            return await self._add_reservations(origin, earlier.result())
        try:
            body = await self._get(origin, robots_txt.PATH, robots_txt.MAX_BYTES)
        except FetchError as error:
            refusal = (error.reason, error.detail)
            return Site(refusal=refusal, valid_until=time.monotonic() + UNREACHABLE)
        is_small = len(body) <= _SMALL_FILE
        robots = await self._compute(is_small, robots_txt.parse, body, self._user_agent)
        if (delay := robots.crawl_delay) > MAX_CRAWL_DELAY:
            rule = f"robots.txt: Crawl-delay: {delay:g}"
            refusal = ("disallowed", f"{rule}; at most {MAX_CRAWL_DELAY:g} seconds are waited")
            return Site(refusal=refusal)
        site = Site(robots, pace=self._find_pace(origin, delay * self._processes))
        is_small = robots.work(tdm_reservation.PATH) <= path_rules.SMALL_WORK
        if await self._compute(is_small, robots.find, tdm_reservation.PATH):
            return site
        return await self._add_reservations(origin, site)

    def _find_pace(self, origin: yarl.URL, interval: float) -> Pace | None:
        if not interval:
            return None
        pace = self._paces.get(origin)
        if pace is None:
            pace = self._paces[origin] = Pace(interval, next_turn=interval)
        pace.interval = interval
        return pace

    async def _add_reservations(self, origin: yarl.URL, site: Site) -> Site:
        """Return a site with its tdmrep.json. What cannot be read reserves nothing."""
        try:
            limit = tdm_reservation.MAX_BYTES + 1
            body = await self._get(origin, tdm_reservation.PATH, limit, site.pace)
        except FetchError:
            return dataclasses.replace(site, retry_at=time.monotonic() + RETRY_RESERVATIONS)
        is_small = len(body) <= _SMALL_FILE
        reservations = await self._compute(is_small, tdm_reservation.parse, body)
        return dataclasses.replace(site, reservations=reservations, retry_at=math.inf)

    async def _compute(self, is_small: bool, function: Callable[..., T], *arguments: Any) -> T:
        """Call a function; in a thread if it may take long.

        Only one thread at a time, because each takes the interpreter's lock from the event loop.
        """
        if is_small:
            return function(*arguments)
        async with self._thinking:
            return await asyncio.to_thread(function, *arguments)

    async def _get(
        self, origin: yarl.URL, path: str, limit: int, pace: Pace | None = None
    ) -> bytes:
        """Return the first bytes of a file of a site; none if it has no such file.

        Raises:
          FetchError: The site cannot be reached, or, as `disallowed`, does not answer properly.
        """

        async def admit(url: yarl.URL) -> Admission:
            return Admission(pace if url.origin() == origin else None)

        async def read(response: aiohttp.ClientResponse, unused_admission: Admission) -> bytes:
            body = bytearray()
            while len(body) < limit and (block := await response.content.readany()):
                body += block
            return bytes(body[:limit])

        visit = Visit([origin.with_path(path, encoded=True)])
        try:
            return await self._http.get(visit, read, admit)
        except FetchError as error:
            if _MISSING.fullmatch(error.reason):
                return b""
            is_down = error.unreachable or error.reason in ("tls", "blocked_address")
            if is_down and len(visit.route) == 1:
                raise
            raise FetchError("disallowed", f"{path}: {error.reason}: {error.detail}") from error


def _succeeded(task: asyncio.Task[Site]) -> bool:
    return not (task.cancelled() or task.exception())


def _is_outdated(task: asyncio.Task[Site]) -> bool:
    if not _succeeded(task):
        return True
    site = task.result()
    return min(site.valid_until, site.retry_at) < time.monotonic()


def _find_rules(site: Site, path: str) -> tuple[str | None, str | None]:
    return site.robots.find(path), site.reservations.find(path)
