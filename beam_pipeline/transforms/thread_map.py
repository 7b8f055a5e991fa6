"""Work in threads beside the worker's own one.

Pillow, NumPy and the network release the interpreter's lock while they compute.
"""

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

from beam_pipeline.process import processors, stage_times

# More threads would wait for the interpreter's lock, which an image needs for a tenth of its time.
MAX_THREADS = 8
MAX_BYTES = 64 * 2**20
# Niceness: below all other computation, but not so low that a thread stalls while it holds the
# interpreter's lock.
_LOW_PRIORITY = 10
_making = threading.Lock()


class ThreadMap(beam.DoFn):
    """`beam.Map` of a function in the process's threads, in the order of the elements.

    The worker's thread continues meanwhile: it emits a result once `max_in_flight` newer elements
    are queued. The threads therefore have work while it computes embeddings.

    Counts `images` and `microseconds`, the wall time of the function including waiting, in the
    namespace of the stage.
    """

    def __init__(
        self,
        stage: str,
        function: Callable[..., Any],
        *arguments: Any,
        max_in_flight: int | None = None,
        low_priority: bool = False,
        threads: int | None = None,
    ):
        """Initialize the transform.

        Args:
          stage: Namespace of the metrics, one of `naming.STAGES`.
          function: Takes an element, which has `nbytes`, and the arguments; returns an element or
            a TaggedOutput.
          arguments: Further arguments of the function.
          max_in_flight: Maximum number of elements in progress, of at most 64 MiB together; by
            default one per thread.
          low_priority: Whether the threads run with low priority, so that the network goes first.
          threads: Number of threads; by default one per processor, at most `MAX_THREADS`.
        """
        self._function, self._arguments, self._low_priority, self._threads = (
            function,
            arguments,
            low_priority,
            threads,
        )
        self._given_max, self._stage = max_in_flight, stage
        self._images = Metrics.counter(stage, "images")
        self._microseconds = Metrics.counter(stage, "microseconds")

    def start_bundle(self) -> None:
        self.teardown()
        self._under_way: collections.deque[
            tuple[concurrent.futures.Future[tuple[Any, int]], int]
        ] = collections.deque()
        self._bytes = 0
        self._max_in_flight = self._given_max or _count_threads()

    def process(self, element: Any) -> Iterator[Any]:
        executor = _executor_of(self._threads or _count_threads(), self._low_priority)
        future = executor.submit(_time, self._function, element, *self._arguments)
        self._under_way.append((future, element.nbytes))
        self._bytes += element.nbytes
        while len(self._under_way) > self._max_in_flight or self._bytes > MAX_BYTES:
            yield self._next()

    def finish_bundle(self) -> Iterator[Any]:
        while self._under_way:
            yield in_global_window(self._next())

    def teardown(self) -> None:
        """Cancel the pending elements of an aborted bundle."""
        for future, _ in getattr(self, "_under_way", ()):
            future.cancel()

    def _next(self) -> Any:
        future, nbytes = self._under_way.popleft()
        self._bytes -= nbytes
        outcome, microseconds = future.result()
        # Beam drops counts from other threads.
        self._images.inc()
        self._microseconds.inc(microseconds)
        stage_times.add(self._stage, microseconds)
        return outcome


def _time(function: Callable[..., Any], *arguments: Any) -> tuple[Any, int]:
    """Return the result of a function and its wall time in microseconds."""
    began = time.perf_counter()
    outcome = function(*arguments)
    return outcome, round((time.perf_counter() - began) * 1e6)


def in_global_window(outcome: Any) -> Any:
    """Return an outcome in the form that Beam requires at the end of a bundle."""
    if isinstance(outcome, TaggedOutput):
        return TaggedOutput(outcome.tag, GlobalWindows.windowed_value(outcome.value))
    return GlobalWindows.windowed_value(outcome)


@functools.cache
def _make_executor(threads: int, low_priority: bool) -> concurrent.futures.ThreadPoolExecutor:
    return concurrent.futures.ThreadPoolExecutor(
        threads, "images", initializer=_low_priority if low_priority else None
    )


def _executor_of(threads: int, low_priority: bool) -> concurrent.futures.ThreadPoolExecutor:
    with _making:
        return _make_executor(threads, low_priority)


def _count_threads() -> int:
    return min(MAX_THREADS, processors.count_processors())


def _low_priority() -> None:
    """Lower the priority of the current thread so that the network goes first.

    The network's threads wait for one another: one that is delayed delays all.
    """
    if sys.platform == "linux":  # where priorities are per thread
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _LOW_PRIORITY)
