"""Counts of completed images across processes, for the progress line."""

from __future__ import annotations

import io


class Ticks:
    """Counts completed images of this process and its child processes.

    Each image appends a byte to a file, which needs no lock.
    """

    def __init__(self, path: str):
        self._path = path
        self._file: io.FileIO | None = None

    def example(self) -> None:
        self._add(b"+")

    def failure(self) -> None:
        self._add(b"-")

    def _add(self, tick: bytes) -> None:
        if self._file is None:
            self._file = io.FileIO(self._path, "a")  # closed when garbage-collected
        self._file.write(tick)

    def __reduce__(self) -> tuple[type[Ticks], tuple[str]]:
        return Ticks, (self._path,)
