"""Concurrent fetching of images (ImageRef -> EncodedImage) in each worker process.

Requests run in a separate event loop while the worker's thread embeds and writes the images that
were fetched. `fetch_images.FetchImages` emits the images that are ready. It waits only when none is
ready, or at the end of a bundle.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import multiprocessing
import threading
import weakref

from beam_pipeline.config import Config
from beam_pipeline.elements import EncodedImage, Extent, Failure, ImageRef
from beam_pipeline.fetching import kept_images, stored_images
from beam_pipeline.fetching.fallback import Fallback
from beam_pipeline.fetching.web_client import Bundle, WebClient

Fetched = concurrent.futures.Future[EncodedImage | Failure]


class Fetcher:
    """The event loop, threads and connections that a worker process fetches with.

    A Fetcher closes itself when it is garbage-collected.
    """

    def __init__(self, config: Config, processes: int = 1):
        """Start the loop.

        Args:
          config: The options, with the share of this process in the limits on requests.
          processes: Number of processes that fetch images of the same list.
        """
        self._config, self._processes = config, processes
        self._loop = asyncio.new_event_loop()
        self._loop.set_default_executor(
            concurrent.futures.ThreadPoolExecutor(config.fetch_concurrency, "files")
        )
        self._thread = threading.Thread(target=_run, args=[self._loop], name="fetch", daemon=True)
        self._thread.start()
        self._slots = asyncio.Semaphore(config.fetch_concurrency)
        self._web = asyncio.run_coroutine_threadsafe(self._open(), self._loop).result()
        self._end = weakref.finalize(self, _end, self._loop, self._web)

    @property
    def is_open(self) -> bool:
        return self._end.alive

    def close(self) -> None:
        """Cancel the pending fetches and wait until everything is closed."""
        self._end()
        self._thread.join()

    async def _open(self) -> WebClient:
        return WebClient(self._config, self._slots, processes=self._processes)

    def submit(self, ref: ImageRef, bundle: Bundle) -> Fetched:
        """Start to fetch an image.

        Args:
          ref: The image.
          bundle: What the images of its bundle share. The budget is acquired for an EncodedImage
            and held until `release` is called.

        Returns:
          A Future of the image or its failure. It raises only errors that end the run: a bug, or a
          fault of the machine.
        """
        coroutine = _fetch(self._config, self._web, self._slots, ref, bundle)
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop)

    def release(self, image: EncodedImage, bundle: Bundle) -> None:
        self._loop.call_soon_threadsafe(bundle.release, image.data)


_fetchers: weakref.WeakValueDictionary[tuple[Config, int], Fetcher] = weakref.WeakValueDictionary()
_kept: list[Fetcher] = []
_opening = threading.Lock()


def shared_fetcher(config: Config, processes: int = 1) -> Fetcher:
    """Return the process's Fetcher for a config and a number of processes.

    All bundles, threads and graphs of a process share it. It exists as long as one of them holds a
    reference to it; in a process that another one has started, until one with another config opens.
    """
    with _opening:
        fetcher = _fetchers.get((config, processes))
        if fetcher is None or not fetcher.is_open:
            fetcher = _fetchers[config, processes] = Fetcher(config, processes)
        if multiprocessing.parent_process():
            # Between two graphs nothing else keeps what a worker knows of hosts and sites.
            _kept[:] = [fetcher]
        return fetcher


# Not a method of Fetcher: a pending coroutine must not prevent its garbage collection.
async def _fetch(
    config: Config,
    web: WebClient,
    slots: asyncio.Semaphore,
    ref: ImageRef,
    bundle: Bundle,
) -> EncodedImage | Failure:
    outcome = None
    if isinstance(ref.location, Extent) or config.original_dir or config.resized_dir:
        async with slots:
            outcome = await asyncio.to_thread(_read_from_disk, config, ref)
            if isinstance(outcome, EncodedImage):
                await web.reserve(bundle, outcome.data)
    outcome = outcome or await web.fetch(ref, bundle)
    if config.has_fallback and ref.location is None:
        return await Fallback(config, web, slots).rescue(outcome, bundle)
    return outcome


def _run(loop: asyncio.AbstractEventLoop) -> None:
    try:
        loop.run_forever()
    finally:
        loop.close()


def _end(loop: asyncio.AbstractEventLoop, web: WebClient) -> None:
    """Schedule the end of the loop without waiting for it.

    The garbage collector may call this in any thread, including one that the loop waits for.
    """

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
    kept = kept_images.read(config, ref)
    if kept or not isinstance(ref.location, Extent):
        return kept
    return stored_images.read_file(ref, config.max_image_bytes)
