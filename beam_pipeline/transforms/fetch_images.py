"""The step that fetches images.

The worker's thread embeds and writes the images that have arrived in the meantime.
"""

from __future__ import annotations

import queue
import time
from collections.abc import Iterable, Iterator
from typing import Any

import apache_beam as beam
from apache_beam.metrics import Metrics
from apache_beam.pvalue import TaggedOutput

from beam_pipeline import naming
from beam_pipeline.config import Config
from beam_pipeline.elements import EncodedImage, Failure, ImageRef, Row
from beam_pipeline.fetching.image_fetcher import Fetched, shared_fetcher
from beam_pipeline.fetching.web_client import MAX_COST, Bundle
from beam_pipeline.process import stage_times
from beam_pipeline.transforms.read_groups import GroupReader
from beam_pipeline.transforms.thread_map import in_global_window

# Images of a bundle in progress per request in flight: enough that slow hosts do not block the
# others. Only their names and URLs are in memory; the number of downloaded images held is at most
# twice the number of requests.
_QUEUED_PER_REQUEST = 16
# The same with those that wait for something else than a request: their host's pace, or another
# attempt.
_WAITING_PER_REQUEST = 64
_LOOK_AGAIN = 1.0  # seconds after which images that have begun to wait leave room to others


class FetchImages(beam.DoFn):
    """Fetch the images of groups; emit each as EncodedImage.

    A group is a sequence of ImageRef: one image that can be read on its own, or all images with a
    `Row` that are read in one go. Images that cannot be fetched are emitted as Failure to the
    output `failures`.
    """

    def __init__(self, config: Config, processes: int = 1, excluded: frozenset[str] = frozenset()):
        """Initialize the step.

        Args:
          config: The options, with the share of one process in the limits on requests.
          processes: Number of worker processes that share them.
          excluded: The sha256 of bodies that are not photographs, in hex, for which a fallback is
            asked if there is one.
        """
        self._config, self._processes = config, processes
        self._excluded = excluded if config.has_fallback else frozenset()
        self._window = _QUEUED_PER_REQUEST * config.fetch_concurrency
        self._max_waiting = _WAITING_PER_REQUEST * config.fetch_concurrency
        self._fetched = Metrics.counter(naming.FETCH, "images")
        self._bytes = Metrics.counter(naming.FETCH, "bytes")
        self._waited = Metrics.counter(naming.FETCH, "waited_microseconds")

    def setup(self) -> None:
        self._fetcher = shared_fetcher(self._config, self._processes)

    def start_bundle(self) -> None:
        self.teardown()
        self._done: queue.SimpleQueue[Fetched] = queue.SimpleQueue()
        self._under_way: set[Fetched] = set()
        self._groups: GroupReader | None = None
        # One per bundle, so that an aborted bundle leaves nothing acquired.
        self._bundle = Bundle(max(2 * self._config.fetch_concurrency, MAX_COST), self._excluded)

    def process(self, group: Iterable[ImageRef]) -> Iterator[EncodedImage | TaggedOutput]:
        refs = list(group)
        if isinstance(refs[0].location, Row):
            if self._groups is None:
                self._groups = GroupReader(self._config)
            yield from self._count(self._groups.submit(refs))
            return
        for ref in refs:
            future = self._fetcher.submit(ref, self._bundle)
            self._under_way.add(future)
            future.add_done_callback(self._done.put)
            while self._is_full() or not self._done.empty():
                yield from self._next()

    def finish_bundle(self) -> Iterator[Any]:
        while self._under_way:
            yield from map(in_global_window, self._next())
        if self._groups:
            yield from map(in_global_window, self._count(self._groups.finish()))
            self._groups.close()

    def teardown(self) -> None:
        """Cancel the pending images of an aborted bundle."""
        for future in getattr(self, "_under_way", ()):
            future.cancel()
        if groups := getattr(self, "_groups", None):
            groups.close()

    def _is_full(self) -> bool:
        """Return whether an image has to end before another one begins."""
        number = len(self._under_way)
        return number - self._bundle.waits.count >= self._window or number >= self._max_waiting

    def _next(self) -> Iterator[EncodedImage | TaggedOutput]:
        """Yield the next outcome, or nothing if none arrives soon."""
        began = time.perf_counter()
        try:
            future = self._done.get(timeout=_LOOK_AGAIN)
        except queue.Empty:
            return
        finally:
            waited = round((time.perf_counter() - began) * 1e6)
            self._waited.inc(waited)
            stage_times.add(naming.FETCH, waited)
        self._under_way.discard(future)
        outcome = future.result()
        if isinstance(outcome, EncodedImage):
            self._fetcher.release(outcome, self._bundle)
        yield from self._count([outcome])

    def _count(
        self, outcomes: Iterable[EncodedImage | Failure]
    ) -> Iterator[EncodedImage | TaggedOutput]:
        for outcome in outcomes:
            if isinstance(outcome, Failure):
                yield TaggedOutput("failures", outcome)
            else:
                self._fetched.inc()
                self._bytes.inc(len(outcome.data))
                yield outcome
