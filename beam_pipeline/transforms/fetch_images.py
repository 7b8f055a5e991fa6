"""The step that fetches images, while the worker's thread embeds and writes those that have arrived."""

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
from beam_pipeline.fetching.http_client import MAX_WEIGHT
from beam_pipeline.fetching.image_fetcher import Fetched, shared_fetcher
from beam_pipeline.transforms.thread_map import in_global_window

# Images that a bundle may have under way for each request in flight: enough that some hosts may keep theirs waiting
# while others are asked. They are names and URLs; of those that have come, no more than twice the requests are held.
_AHEAD = 16


class FetchImages(beam.DoFn):
    """ImageRef -> EncodedImage; those that cannot be had go to the output `failures`, as Failure."""

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
        # Of each bundle its own, so that one that is broken off leaves nothing taken.
        self._room = asyncio.Semaphore(max(2 * self._config.fetch_concurrency, MAX_WEIGHT))

    def process(self, ref: ImageRef) -> Iterator[EncodedImage | TaggedOutput]:
        future = self._fetcher.submit(ref, self._room)
        self._under_way.add(future)
        future.add_done_callback(self._done.put)
        while len(self._under_way) >= self._window or not self._done.empty():
            yield self._next()

    def finish_bundle(self) -> Iterator[Any]:
        while self._under_way:
            yield in_global_window(self._next())

    def teardown(self) -> None:
        """Forgets what a bundle that was broken off has under way."""
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
        self._fetcher.release(outcome, self._room)
        self._fetched.inc()
        self._bytes.inc(len(outcome.data))
        return outcome
