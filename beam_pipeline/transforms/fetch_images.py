"""The step that fetches images.

The worker's thread embeds and writes the images that have arrived in the meantime.
"""

from __future__ import annotations

import asyncio
import queue
import time
from collections.abc import Iterator
from typing import Any

import apache_beam as beam
from apache_beam.metrics import Metrics
from apache_beam.pvalue import TaggedOutput

from beam_pipeline.config import Config
from beam_pipeline.elements import EncodedImage, Failure, ImageRef
from beam_pipeline.fetching.http_client import MAX_COST
from beam_pipeline.fetching.image_fetcher import Fetched, shared_fetcher
from beam_pipeline.transforms.thread_map import in_global_window

# Images of a bundle in progress per request in flight: enough that slow hosts do not block the
# others. Only their names and URLs are in memory; the number of downloaded images held is at most
# twice the number of requests.
_AHEAD = 16


class FetchImages(beam.DoFn):
    """Fetch the image of each ImageRef; emit it as EncodedImage.

    Images that cannot be fetched are emitted as Failure to the output `failures`.
    """

    def __init__(self, config: Config):
        self._config = config
        self._window = _AHEAD * config.fetch_concurrency
        self._fetched = Metrics.counter("fetch", "images")
        self._bytes = Metrics.counter("fetch", "bytes")
        self._waited = Metrics.counter("fetch", "waited_microseconds")

    def setup(self) -> None:
        self._fetcher = shared_fetcher(self._config)

    def start_bundle(self) -> None:
        self.teardown()
        self._done: queue.SimpleQueue[Fetched] = queue.SimpleQueue()
        self._under_way: set[Fetched] = set()
        # One semaphore per bundle, so that an aborted bundle leaves nothing acquired.
        self._budget = asyncio.Semaphore(max(2 * self._config.fetch_concurrency, MAX_COST))

    def process(self, ref: ImageRef) -> Iterator[EncodedImage | TaggedOutput]:
        future = self._fetcher.submit(ref, self._budget)
        self._under_way.add(future)
        future.add_done_callback(self._done.put)
        while len(self._under_way) >= self._window or not self._done.empty():
            yield self._next()

    def finish_bundle(self) -> Iterator[Any]:
        while self._under_way:
            yield in_global_window(self._next())

    def teardown(self) -> None:
        """Cancel the pending images of an aborted bundle."""
        for future in getattr(self, "_under_way", ()):
            future.cancel()

    def _next(self) -> EncodedImage | TaggedOutput:
        began = time.perf_counter()
        future = self._done.get()
        self._waited.inc(round((time.perf_counter() - began) * 1e6))
        self._under_way.discard(future)
        outcome = future.result()
        if isinstance(outcome, Failure):
            return TaggedOutput("failures", outcome)
        self._fetcher.release(outcome, self._budget)
        self._fetched.inc()
        self._bytes.inc(len(outcome.data))
        return outcome
