"""ImageRef -> EncodedImage, with many images on their way at a time in each worker process.

Requests run in an event loop of their own while the worker's thread embeds and writes what has come: `FetchImages`
hands on what is ready, and waits only when nothing is, or at the end of a bundle.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import queue
import threading
import time
import weakref
from collections.abc import Iterator
from typing import Any

import apache_beam as beam
from apache_beam.io.filesystem import BeamIOError
from apache_beam.metrics import Metrics
from apache_beam.pvalue import TaggedOutput

from beam_pipeline.config import Config
from beam_pipeline.elements import EncodedImage, Failure, ImageRef
from beam_pipeline.fetching import kept_images
from beam_pipeline.fetching.http_client import MOST_WEIGHT, WebClient, weigh
from beam_pipeline.storage import filesystem
from beam_pipeline.transforms.thread_map import windowed

Fetched = concurrent.futures.Future[EncodedImage | Failure]

# Images that a bundle may have under way for each request in flight: enough that some hosts may keep theirs waiting
# while others are asked. They are names and URLs; of those that have come, no more than twice the requests are held.
_AHEAD = 16


class Fetcher:
    """The event loop, threads and connections with which a worker process fetches. Closes itself when it is forgotten."""

    def __init__(self, config: Config):
        self._config = config
        self._loop = asyncio.new_event_loop()
        self._loop.set_default_executor(concurrent.futures.ThreadPoolExecutor(config.fetch_concurrency, "files"))
        self._thread = threading.Thread(target=_run, args=[self._loop], name="fetch", daemon=True)
        self._thread.start()
        self._slots = asyncio.Semaphore(config.fetch_concurrency)
        self._web = asyncio.run_coroutine_threadsafe(self._open(), self._loop).result()
        self._end = weakref.finalize(self, _end, self._loop, self._web)

    def close(self) -> None:
        """Ends what is under way, and waits until nothing is left open."""
        self._end()
        self._thread.join()

    async def _open(self) -> WebClient:
        return WebClient(self._config, self._slots)

    def submit(self, ref: ImageRef, room: asyncio.Semaphore) -> Fetched:
        """Begins to fetch an image. Its Future raises only what ends the run: a bug, or a broken machine.

        Args:
          ref: The image.
          room: Acquired for an EncodedImage that has come, until `release` is called.
        """
        coroutine = _fetch(self._config, self._web, self._slots, ref, room)
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop)

    def release(self, image: EncodedImage, room: asyncio.Semaphore) -> None:
        for _ in range(weigh(image.data)):
            self._loop.call_soon_threadsafe(room.release)


_fetchers: weakref.WeakValueDictionary[Config, Fetcher] = weakref.WeakValueDictionary()
_opening = threading.Lock()


def shared_fetcher(config: Config) -> Fetcher:
    """The process's one Fetcher, for as long as anything holds it, however many bundles, threads or graphs ask for it."""
    with _opening:
        fetcher = _fetchers.get(config)
        if fetcher is None:
            fetcher = _fetchers[config] = Fetcher(config)
        return fetcher


# No method of Fetcher: a coroutine under way must not keep it from being forgotten.
async def _fetch(
    config: Config, web: WebClient, slots: asyncio.Semaphore, ref: ImageRef, room: asyncio.Semaphore
) -> EncodedImage | Failure:
    if config.images or config.original_dir or config.resized_dir:
        async with slots:
            kept = await asyncio.to_thread(_read_from_disk, config, ref)
            if isinstance(kept, EncodedImage):
                await web.take(room, kept.data)
        if kept:
            return kept
    return await web.fetch(ref, room)


def _run(loop: asyncio.AbstractEventLoop) -> None:
    try:
        loop.run_forever()
    finally:
        loop.close()


def _end(loop: asyncio.AbstractEventLoop, web: WebClient) -> None:
    """Has the loop end, soon: the garbage collector may call this in any thread, one that the loop waits for too."""

    async def end() -> None:
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await web.close()
        await loop.shutdown_default_executor()
        loop.stop()

    asyncio.run_coroutine_threadsafe(end(), loop)


def _read_from_disk(config: Config, ref: ImageRef) -> EncodedImage | Failure | None:
    return kept_images.read(config, ref) or (read_file(ref, config.max_image_bytes) if config.images else None)


def read_file(ref: ImageRef, max_bytes: int) -> EncodedImage | Failure:
    """Reads an image file on any filesystem that Beam knows."""
    try:
        data = filesystem.read_bytes(ref.url, max_bytes + 1)
    except (OSError, BeamIOError) as error:
        return Failure(ref, "fetch", "not_found", str(error), 1, ref.url)
    if not data:
        return Failure(ref, "fetch", "empty", "a file of 0 bytes", 1, ref.url)
    if len(data) > max_bytes:
        return Failure(ref, "fetch", "too_large", f"more than the {max_bytes} bytes that are allowed", 1, ref.url)
    return EncodedImage(ref, data, 1, ref.url)


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
        self._room = asyncio.Semaphore(max(2 * self._config.fetch_concurrency, MOST_WEIGHT))

    def process(self, ref: ImageRef) -> Iterator[EncodedImage | TaggedOutput]:
        future = self._fetcher.submit(ref, self._room)
        self._under_way.add(future)
        future.add_done_callback(self._done.put)
        while len(self._under_way) >= self._window or not self._done.empty():
            yield self._next()

    def finish_bundle(self) -> Iterator[Any]:
        while self._under_way:
            yield windowed(self._next())

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
