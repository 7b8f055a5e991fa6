"""Work beside the worker's own thread: Pillow and NumPy let others run while they compute, and so does the network."""

from __future__ import annotations

import collections
import concurrent.futures
import functools
import os
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import apache_beam as beam
from apache_beam.pvalue import TaggedOutput
from apache_beam.transforms.window import GlobalWindows

# More would wait for the interpreter's lock: an image is held up by it for a tenth of its time.
_MOST_THREADS = 8
_MOST_BYTES = 64 * 2**20


class MapInThreads(beam.DoFn):
    """`beam.Map` of a function in the process's threads, as many as it has processors, in the order of the elements.

    The worker's thread goes on meanwhile: it hands on an outcome when so many elements as are to be ahead have followed. So there
    is always as much to do for the threads while it computes embeddings.
    """

    def __init__(self, function: Callable[..., Any], *arguments: Any, ahead: int = 2 * _MOST_THREADS, give_way: bool = False):
        """Args:
        function: Of an element, which has `nbytes`, and the arguments; gives an element, or a TaggedOutput.
        arguments: The further arguments.
        ahead: Elements under way, of at most 64 MiB together.
        give_way: Takes the time that nothing else on the machine needs, as beside the network.
        """
        self._function, self._arguments, self._ahead, self._give_way = function, arguments, ahead, give_way

    def start_bundle(self) -> None:
        self.teardown()
        self._under_way: collections.deque[tuple[concurrent.futures.Future[Any], int]] = collections.deque()
        self._bytes = 0

    def process(self, element: Any) -> Iterator[Any]:
        self._under_way.append((_threads(self._give_way).submit(self._function, element, *self._arguments), element.nbytes))
        self._bytes += element.nbytes
        while len(self._under_way) > self._ahead or self._bytes > _MOST_BYTES:
            yield self._next()

    def finish_bundle(self) -> Iterator[Any]:
        while self._under_way:
            yield windowed(self._next())

    def teardown(self) -> None:
        """Forgets what a bundle that was broken off has under way."""
        for future, _ in getattr(self, "_under_way", ()):
            future.cancel()

    def _next(self) -> Any:
        future, nbytes = self._under_way.popleft()
        self._bytes -= nbytes
        return future.result()


def windowed(outcome: Any) -> Any:
    """An outcome as Beam wants it at the end of a bundle."""
    if isinstance(outcome, TaggedOutput):
        return TaggedOutput(outcome.tag, GlobalWindows.windowed_value(outcome.value))
    return GlobalWindows.windowed_value(outcome)


@functools.cache
def _threads(give_way: bool) -> concurrent.futures.ThreadPoolExecutor:
    number = min(_MOST_THREADS, count_processors())
    return concurrent.futures.ThreadPoolExecutor(number, "images", initializer=_give_way if give_way else None)


def _give_way() -> None:
    """Takes the least priority: the network's threads wait for one another, so that one that is held up holds up all."""
    if sys.platform == "linux":  # where each thread has its own
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 19)


def count_processors() -> int:
    """Of this machine, those that the process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
