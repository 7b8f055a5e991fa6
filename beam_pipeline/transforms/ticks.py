"""Counts of completed images across processes, for the progress line.

On one machine, processes append to a file. On an engine, each worker process writes a file of its
counts into the output folder, which is the one place that workers and the command all reach: the
metrics of a job arrive on Flink and Spark only when it has ended.
"""

from __future__ import annotations

import collections
import contextlib
import io
import json
import os
import threading
import time
import types
import uuid
from collections.abc import Callable, Mapping
from typing import NamedTuple, Protocol

from beam_pipeline import naming
from beam_pipeline.process import stage_times
from beam_pipeline.storage import any_path, filesystem

WRITE_INTERVAL = 10.0  # seconds between two files of a worker process


class Tally(NamedTuple):
    """What is done of a part that is not complete.

    Attributes:
      examples: Number of examples.
      failures: Number of failures.
      reasons: Number of failures by reason; empty if it is not known.
      microseconds: Wall time by stage, of all worker processes; empty if it is not known.
    """

    examples: int = 0
    failures: int = 0
    reasons: Mapping[str, int] = types.MappingProxyType({})
    microseconds: Mapping[str, int] = types.MappingProxyType({})

    @property
    def images(self) -> int:
        return self.examples + self.failures


class Ticks(Protocol):
    """Counts completed images in a worker. Picklable."""

    def example(self) -> None: ...

    def failure(self, reason: str) -> None: ...


class TallySource(Protocol):
    """Reads what workers have counted."""

    def read(self) -> Tally:
        """Return what is done of the unfinished part."""

    def next_part(self) -> None:
        """Begin a part: what was counted so far belongs to complete ones."""


class TickFile:
    """Ticks of this process and its child processes in a file on this machine, which exists.

    Each image appends a byte to the file, which needs no lock.
    """

    def __init__(self, path: str):
        self._path, self._start = path, 0
        self._file: io.FileIO | None = None

    def example(self) -> None:
        self._add(b"+")

    def failure(self, unused_reason: str) -> None:
        self._add(b"-")

    def _add(self, tick: bytes) -> None:
        if self._file is None:
            self._file = io.FileIO(self._path, "a")  # closed when garbage-collected
        self._file.write(tick)

    def read(self) -> Tally:
        with open(self._path, "rb") as file:
            file.seek(self._start)
            ticks = file.read()
        return Tally(ticks.count(b"+"), ticks.count(b"-"))

    def next_part(self) -> None:
        self._start = os.path.getsize(self._path)

    def __reduce__(self) -> tuple[type[TickFile], tuple[str]]:
        return TickFile, (self._path,)


class TickFolder:
    """Ticks of worker processes on any machines, in files below the output folder.

    A process writes its file at an image, at most every `WRITE_INTERVAL`: none is left to write
    once the part is complete and the files are removed. Work that an engine repeats counts again.
    """

    def __init__(self, output: str, part: int = 0, clock: Callable[[], float] = time.monotonic):
        self._output, self._part, self._clock = output, part, clock
        self._counter: _ProcessCounter | None = None

    def example(self) -> None:
        self._count("")

    def failure(self, reason: str) -> None:
        self._count(reason)

    def _count(self, reason: str) -> None:
        if self._counter is None:
            self._counter = _counter_of(self._folder, self._clock)
        self._counter.count(reason)

    @property
    def _folder(self) -> str:
        return any_path.join(self._output, f"{naming.TICKS_PREFIX}{self._part:05}")

    def read(self) -> Tally:
        """Return the sum of all files; those that cannot be read are left out.

        The part may have just ended, or the store may be slow.
        """
        examples, reasons = 0, collections.Counter[str]()
        microseconds = collections.Counter[str]()
        paths: list[str] = []
        with contextlib.suppress(Exception):
            paths = list(filesystem.list_folder(self._folder, "*.json"))
        for path in paths:
            with contextlib.suppress(Exception):
                counts = json.loads(filesystem.read_bytes(path))
                examples += counts["examples"]
                reasons.update(counts["failures"])
                microseconds.update(counts["microseconds"])
        return Tally(examples, reasons.total(), reasons, microseconds)

    def next_part(self) -> None:
        self._part += 1

    def __reduce__(self) -> tuple[type[TickFolder], tuple[str, int]]:
        return TickFolder, (self._output, self._part)


class _ProcessCounter:
    """The counts of this process for one part, and the file that it writes them to."""

    def __init__(self, folder: str, earlier: Mapping[str, int], clock: Callable[[], float]):
        self._path = any_path.join(folder, f"{uuid.uuid4().hex}.json")
        self._lock, self._clock = threading.Lock(), clock
        self._examples, self._written = 0, clock()
        self._reasons: collections.Counter[str] = collections.Counter()
        self._earlier = collections.Counter(earlier)

    def count(self, reason: str) -> None:
        """Count a failure with a reason, or an example without one; write the file if it is due."""
        with self._lock:
            self._examples += not reason
            if reason:
                self._reasons[reason] += 1
            if self._clock() < self._written + WRITE_INTERVAL:
                return
            self._written = self._clock()
            counts = {
                "examples": self._examples,
                "failures": self._reasons,
                "microseconds": collections.Counter(stage_times.read()) - self._earlier,
            }
            data = json.dumps(counts).encode()
        # Progress is not worth an image: a job must not fail for it.
        with contextlib.suppress(Exception):
            filesystem.write_bytes(self._path, data)


_counters: dict[str, _ProcessCounter] = {}
_opening = threading.Lock()


def _counter_of(folder: str, clock: Callable[[], float]) -> _ProcessCounter:
    with _opening:
        if folder not in _counters:
            earlier = stage_times.read() if _counters else {}
            _counters.clear()
            _counters[folder] = _ProcessCounter(folder, earlier, clock)
        return _counters[folder]
