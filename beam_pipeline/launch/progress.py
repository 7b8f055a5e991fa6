"""The progress line of a run on this machine."""

from __future__ import annotations

import os
import threading
import time
from typing import TextIO


class ProgressLine:
    """A context manager that rewrites a line on a terminal each second.

    It reads the file of a `ticks.Ticks`, and writes nothing if the stream is not a terminal.

    Attributes:
      total: Number of images that the run will process, once it is known.
    """

    def __init__(self, path: str, stream: TextIO):
        self.total: int | None = None
        self._path, self._stream = path, stream
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, name="progress", daemon=True)

    def __enter__(self) -> ProgressLine:
        if self._stream.isatty():
            self._thread.start()
        return self

    def __exit__(self, *unused_exception: object) -> None:
        self._done.set()
        if self._thread.is_alive():
            self._thread.join()
            self._stream.write("\r\x1b[K")
            self._stream.flush()

    def _run(self) -> None:
        examples = failures = 0
        started: float | None = None
        with open(self._path, "rb") as file:
            while not self._done.wait(1):
                ticks = file.read()
                if ticks and started is None:
                    started = time.monotonic() - 1
                examples += ticks.count(b"+")
                failures += ticks.count(b"-")
                seconds = time.monotonic() - started if started is not None else 0.0
                # A longer line would wrap, and could not be rewritten.
                text = format_progress(examples, failures, seconds, self.total)[
                    : _width(self._stream) - 1
                ]
                self._stream.write(f"\r{text}\x1b[K")
                self._stream.flush()


def _width(stream: TextIO) -> int:
    """Return the number of columns of a terminal; 80 if it is unknown."""
    try:
        return os.get_terminal_size(stream.fileno()).columns or 80
    except (OSError, ValueError):
        return 80


def format_progress(examples: int, failures: int, seconds: float, total: int | None) -> str:
    """Return the text of the progress line.

    Args:
      examples, failures: Numbers of images so far.
      seconds: Time since the first of them.
      total: Number of images in the list; None if unknown.

    Returns:
      A text such as `1,234 images written, 56 failed, 12.3 a second, 0:03:21 left`.
    """
    if not seconds:
        return "starting"
    text = f"{examples:,} images written, {failures:,} failed, {examples / seconds:.1f} a second"
    done = examples + failures
    if total and done:
        left = max(0, round((total - done) * seconds / done))
        text += f", {left // 3600}:{left // 60 % 60:02}:{left % 60:02} left"
    return text
