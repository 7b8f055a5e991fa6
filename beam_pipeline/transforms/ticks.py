"""Counts the images that are done, across processes, for the progress line."""

from __future__ import annotations

import io


class Ticks:
    """Counts what is done in this process and those it started: each adds a byte to a file, which needs no lock."""

    def __init__(self, path: str):
        self._path = path
        self._file: io.FileIO | None = None

    def example(self) -> None:
        self._add(b"+")

    def failure(self) -> None:
        self._add(b"-")

    def _add(self, tick: bytes) -> None:
        if self._file is None:
            self._file = io.FileIO(self._path, "a")  # closed when it is forgotten
        self._file.write(tick)

    def __reduce__(self) -> tuple[type[Ticks], tuple[str]]:
        return Ticks, (self._path,)
