"""Reading of images whose file can only be read from front to back.

Such a file is an archive that is compressed, or a row group of a Parquet file. Readers work in
threads while the worker's thread embeds and writes the images that were read.
"""

from __future__ import annotations

import concurrent.futures
import queue
import random
import threading
from collections.abc import Iterable, Iterator
from typing import Any, cast

from beam_pipeline.config import Config
from beam_pipeline.elements import EncodedImage, Failure, ImageRef, Problem, Row
from beam_pipeline.sources import registry

# Neighbours in a file mostly show the same class. Images are mixed as far as this memory allows.
MAX_MIXED, MAX_MIXED_BYTES = 2_000, 128 * 2**20
_READERS = 2  # groups that are read at the same time
_QUEUED = 16  # images that readers are ahead
_DONE = object()

_Outcome = tuple[ImageRef, bytes | Problem]


class GroupReader:
    """Reads the images of groups in the threads of a bundle, and mixes them."""

    def __init__(self, config: Config):
        self._config = config
        self._executor = concurrent.futures.ThreadPoolExecutor(_READERS, "groups")
        self._queue: queue.Queue[Any] = queue.Queue(_QUEUED)
        self._is_closed = threading.Event()
        self._groups = 0
        self._mixed: list[EncodedImage] = []
        self._mixed_bytes = 0
        self._random = random.Random(0)

    def submit(self, refs: Iterable[ImageRef]) -> Iterator[EncodedImage | Failure]:
        """Start to read the images of a group; yield outcomes until there is a free thread."""
        ordered = sorted(refs, key=lambda ref: cast(Row, ref.location).position)
        self._executor.submit(_read_group, ordered, self._config, self._queue, self._is_closed)
        self._groups += 1
        while self._groups >= _READERS:
            yield from self._take()

    def finish(self) -> Iterator[EncodedImage | Failure]:
        """Yield the outcomes of all images that are left."""
        while self._groups:
            yield from self._take()
        self._random.shuffle(self._mixed)
        yield from self._mixed
        self._mixed = []

    def close(self) -> None:
        """End the threads, also those of an aborted bundle."""
        self._is_closed.set()
        self._executor.shutdown(wait=False)

    def _take(self) -> Iterator[EncodedImage | Failure]:
        """Take an outcome from the threads; yield what may be emitted then."""
        outcome = self._queue.get()
        if outcome is _DONE:
            self._groups -= 1
        elif isinstance(outcome, BaseException):
            raise outcome
        else:
            yield from self._mix(*outcome)

    def _mix(self, ref: ImageRef, data: bytes | Problem) -> Iterator[EncodedImage | Failure]:
        if isinstance(data, Problem):
            yield Failure(ref, "read", *data, 1, ref.url)
            return
        self._mixed.append(EncodedImage(ref, data, 1, ref.url))
        self._mixed_bytes += len(data)
        while len(self._mixed) > MAX_MIXED or self._mixed_bytes > MAX_MIXED_BYTES:
            index = self._random.randrange(len(self._mixed))
            self._mixed[index], self._mixed[-1] = self._mixed[-1], self._mixed[index]
            image = self._mixed.pop()
            self._mixed_bytes -= len(image.data)
            yield image


def _read_group(
    refs: list[ImageRef], config: Config, outcomes: queue.Queue[Any], is_closed: threading.Event
) -> None:
    """Put the outcome of each image into a queue, then `_DONE` or an exception."""

    def put(outcome: _Outcome | object) -> None:
        while not is_closed.is_set():
            try:
                return outcomes.put(outcome, timeout=1)
            except queue.Full:
                continue

    path = cast(Row, refs[0].location).path
    try:
        for outcome in registry.find_grouped(path).read_group(refs, config):
            put(outcome)
            if is_closed.is_set():
                return
        put(_DONE)
    except BaseException as error:
        put(RuntimeError(f"{path} cannot be read: {error}"))
