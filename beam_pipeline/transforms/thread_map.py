"""Work beside the worker's own thread: Pillow and NumPy let others run while they compute, and so does the network."""

from __future__ import annotations

import collections
import concurrent.futures
import contextlib
import functools
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import apache_beam as beam
from apache_beam.metrics import Metrics
from apache_beam.pvalue import TaggedOutput
from apache_beam.transforms.window import GlobalWindows

from beam_pipeline.process import processors

# More would wait for the interpreter's lock: an image is held up by it for a tenth of its time.
MAX_THREADS = 8
MAX_BYTES = 64 * 2**20
# Below all else that computes, but not so low that a thread with the interpreter's lock in its hands comes to a halt.
_LOW_PRIORITY = 10
_making = threading.Lock()


class ThreadMap(beam.DoFn):
    """`beam.Map` of a function in the process's threads, in the order of the elements.

    The worker's thread goes on meanwhile: it hands on an outcome when so many elements as are to be ahead have followed. So there
    is always as much to do for the threads while it computes embeddings.

    Counts `images` and `microseconds`, of a processor or of waiting, in a namespace that is called like the function.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        *arguments: Any,
        ahead: int | None = None,
        low_priority: bool = False,
        threads: int | None = None,
    ):
        """Args:
        function: Of an element, which has `nbytes`, and the arguments; gives an element, or a TaggedOutput.
        arguments: The further arguments.
        ahead: Elements under way, of at most 64 MiB together; one for each thread by default.
        low_priority: With low priority, as beside the network.
        threads: How many; as many as there are processors by default.
        """
        self._function, self._arguments, self._low_priority, self._threads = function, arguments, low_priority, threads
        self._most_ahead = ahead
        self._images = Metrics.counter(function.__name__, "images")
        self._microseconds = Metrics.counter(function.__name__, "microseconds")

    def start_bundle(self) -> None:
        self.teardown()
        self._under_way: collections.deque[tuple[concurrent.futures.Future[tuple[Any, int]], int]] = collections.deque()
        self._bytes = 0
        self._ahead = self._most_ahead or _count_threads()

    def process(self, element: Any) -> Iterator[Any]:
        executor = _executor_of(self._threads or _count_threads(), self._low_priority)
        future = executor.submit(_time, self._function, element, *self._arguments)
        self._under_way.append((future, element.nbytes))
        self._bytes += element.nbytes
        while len(self._under_way) > self._ahead or self._bytes > MAX_BYTES:
            yield self._next()

    def finish_bundle(self) -> Iterator[Any]:
        while self._under_way:
            yield in_global_window(self._next())

    def teardown(self) -> None:
        """Forgets what a bundle that was broken off has under way."""
        for future, _ in getattr(self, "_under_way", ()):
            future.cancel()

    def _next(self) -> Any:
        future, nbytes = self._under_way.popleft()
        self._bytes -= nbytes
        outcome, microseconds = future.result()
        # Beam drops what is counted in another thread.
        self._images.inc()
        self._microseconds.inc(microseconds)
        return outcome


def _time(function: Callable[..., Any], *arguments: Any) -> tuple[Any, int]:
    """What a function returns, and the microseconds for which it ran."""
    began = time.perf_counter()
    outcome = function(*arguments)
    return outcome, round((time.perf_counter() - began) * 1e6)


def in_global_window(outcome: Any) -> Any:
    """An outcome as Beam wants it at the end of a bundle."""
    if isinstance(outcome, TaggedOutput):
        return TaggedOutput(outcome.tag, GlobalWindows.windowed_value(outcome.value))
    return GlobalWindows.windowed_value(outcome)


@functools.cache
def _make_executor(threads: int, low_priority: bool) -> concurrent.futures.ThreadPoolExecutor:
    return concurrent.futures.ThreadPoolExecutor(threads, "images", initializer=_low_priority if low_priority else None)


def _executor_of(threads: int, low_priority: bool) -> concurrent.futures.ThreadPoolExecutor:
    with _making:
        return _make_executor(threads, low_priority)


def _count_threads() -> int:
    return min(MAX_THREADS, processors.count_processors())


def _low_priority() -> None:
    """Lets the network go first: its threads wait for one another, so that one that is held up holds up all."""
    if sys.platform == "linux":  # where each thread has a priority of its own
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _LOW_PRIORITY)
