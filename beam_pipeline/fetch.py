"""ImageRef -> EncodedImage, with many images on their way at a time in each worker process.

Requests run in an event loop of their own while the worker's thread decodes and embeds what has come: `FetchImages`
hands on what is ready, and waits only when nothing is, or at the end of a bundle.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import io
import queue
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import apache_beam as beam
from apache_beam.io.filesystem import BeamIOError
from apache_beam.io.filesystems import FileSystems
from apache_beam.metrics import Metrics
from apache_beam.transforms.window import GlobalWindows
from apache_beam.utils import shared
from PIL import Image

from beam_pipeline import files
from beam_pipeline.config import Config
from beam_pipeline.elements import EncodedImage, Failure, ImageRef
from beam_pipeline.web import WebClient

# Images that a bundle may have under way for each request in flight: enough that some hosts may keep theirs waiting
# while others are asked. They are names and URLs; of those that have come, no more than twice the requests are held.
_AHEAD = 16


# What comes of an image; an exception is a bug or a broken machine, and ends the run.
Outcome = EncodedImage | Failure | Exception


class Fetcher:
    """The event loop, threads and connections with which a worker process fetches. Closes itself when it is forgotten."""

    def __init__(self, config: Config):
        self._config = config
        self._loop = asyncio.new_event_loop()
        self._loop.set_default_executor(concurrent.futures.ThreadPoolExecutor(config.fetch_concurrency, "files"))
        self._thread = threading.Thread(target=self._loop.run_forever, name="fetch", daemon=True)
        self._thread.start()
        self._slots = asyncio.Semaphore(config.fetch_concurrency)
        self._room = asyncio.Semaphore(2 * config.fetch_concurrency)
        self._web = asyncio.run_coroutine_threadsafe(self._open(), self._loop).result()
        self.close = weakref.finalize(self, _close, self._loop, self._thread, self._web)

    def submit(self, ref: ImageRef, done: Callable[[Outcome], None]) -> None:
        """Fetches an image, and calls `done` with the outcome from the loop's thread.

        Where that is an EncodedImage, `taken` is to be called when it has been dealt with.
        """
        coroutine = _fetch(self._config, self._web, self._slots, self._room, ref, done)
        asyncio.run_coroutine_threadsafe(coroutine, self._loop)

    def taken(self) -> None:
        self._loop.call_soon_threadsafe(self._room.release)

    async def _open(self) -> WebClient:
        return WebClient(self._config, self._slots, self._room)


# No method of Fetcher: a coroutine under way must not keep it from being forgotten.
async def _fetch(
    config: Config,
    web: WebClient,
    slots: asyncio.Semaphore,
    room: asyncio.Semaphore,
    ref: ImageRef,
    done: Callable[[Outcome], None],
) -> None:
    outcome: Outcome | None = None
    try:
        if config.images or config.original_dir or config.resized_dir:
            async with slots:
                outcome = await asyncio.to_thread(_read_from_disk, config, ref)
                if isinstance(outcome, EncodedImage):
                    await room.acquire()
        if outcome is None:
            outcome = await web.fetch(ref)
            if config.original_dir and isinstance(outcome, EncodedImage):
                path = FileSystems.join(config.original_dir, ref.name)
                await asyncio.to_thread(files.write_bytes, path, outcome.data)
    except Exception as error:
        outcome = error
    done(outcome)


def _close(loop: asyncio.AbstractEventLoop, thread: threading.Thread, web: WebClient) -> None:
    async def end() -> None:
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await web.close()
        await loop.shutdown_default_executor()

    asyncio.run_coroutine_threadsafe(end(), loop).result()
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


def _read_from_disk(config: Config, ref: ImageRef) -> EncodedImage | Failure | None:
    return _read_kept(config, ref) or (read_file(ref, config.max_image_bytes) if config.images else None)


def read_file(ref: ImageRef, max_bytes: int) -> EncodedImage | Failure:
    """Reads an image file on any filesystem that Beam knows."""
    try:
        data = files.read_bytes(ref.url, max_bytes + 1)
    except (OSError, BeamIOError) as error:
        return Failure(ref, "fetch", "not_found", str(error), 1, ref.url)
    if not data:
        return Failure(ref, "fetch", "empty", "a file of 0 bytes", 1, ref.url)
    if len(data) > max_bytes:
        return Failure(ref, "fetch", "too_large", f"more than the {max_bytes} bytes that are allowed", 1, ref.url)
    return EncodedImage(ref, data, 1, ref.url)


def _read_kept(config: Config, ref: ImageRef) -> EncodedImage | None:
    """What an earlier run kept of an image: resized to the size that is asked for now, or else as it was downloaded."""
    for folder, size in ((config.resized_dir, config.image_size), (config.original_dir, None)):
        path = folder and FileSystems.join(folder, ref.name)
        if path and FileSystems.exists(path):
            data = files.read_bytes(path)
            if size is None or Image.open(io.BytesIO(data)).size == (size, size):
                return EncodedImage(ref, data, 0, path)
    return None


class FetchImages(beam.DoFn):
    """ImageRef -> EncodedImage; those that cannot be had go to the output `failures`, as Failure."""

    def __init__(self, config: Config):
        self._config = config
        self._window = _AHEAD * config.fetch_concurrency
        self._shared = shared.Shared()
        self._fetched = Metrics.counter("fetch", "images")
        self._bytes = Metrics.counter("fetch", "bytes")

    def setup(self) -> None:
        self._fetcher = self._shared.acquire(lambda: Fetcher(self._config))

    def start_bundle(self) -> None:
        self._done: queue.SimpleQueue[Outcome] = queue.SimpleQueue()
        self._pending = 0

    def process(self, ref: ImageRef) -> Iterator[EncodedImage | beam.pvalue.TaggedOutput]:
        self._fetcher.submit(ref, self._done.put)
        self._pending += 1
        while self._pending >= self._window or not self._done.empty():
            yield from self._next()

    def finish_bundle(self) -> Iterator[Any]:
        while self._pending:
            for outcome in self._next():
                if isinstance(outcome, beam.pvalue.TaggedOutput):
                    yield beam.pvalue.TaggedOutput(outcome.tag, GlobalWindows.windowed_value(outcome.value))
                else:
                    yield GlobalWindows.windowed_value(outcome)

    def _next(self) -> Iterator[EncodedImage | beam.pvalue.TaggedOutput]:
        outcome = self._done.get()
        self._pending -= 1
        if isinstance(outcome, Failure):
            yield beam.pvalue.TaggedOutput("failures", outcome)
        elif isinstance(outcome, EncodedImage):
            self._fetcher.taken()
            self._fetched.inc()
            self._bytes.inc(len(outcome.data))
            yield outcome
        else:
            raise outcome
