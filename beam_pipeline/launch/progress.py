"""The progress of a run on this machine, for a person."""

from __future__ import annotations

import os
import threading
import time
from typing import TextIO

from tqdm import tqdm

LINE_INTERVAL = 30.0  # seconds between lines in a log file


class Progress:
    """A context manager that reports the progress of a run on a stream.

    On a terminal, it rewrites a line each second; elsewhere it writes a line every 30 seconds. It
    counts the bytes in the file of a `ticks.Ticks`.

    Attributes:
      total: Number of images in the list, once it is known.
    """

    def __init__(
        self,
        path: str,
        stream: TextIO,
        images: int = 0,
        failures: int = 0,
        interval: float = LINE_INTERVAL,
    ):
        """Initialize the report.

        Args:
          path: The file of ticks, which exists.
          stream: Receives the report.
          images, failures: Numbers of images, and of failures among them, in the parts that an
            earlier run completed.
          interval: Seconds between lines if the stream is not a terminal.
        """
        self.total: int | None = None
        self._path, self._stream = path, stream
        self._initial = self._completed = images
        self._failures = failures
        self._counted = 0  # ticks of completed parts
        self._interval = 1.0 if stream.isatty() else interval
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, name="progress", daemon=True)

    def __enter__(self) -> Progress:
        self._thread.start()
        return self

    def __exit__(self, *unused_exception: object) -> None:
        self._done.set()
        self._thread.join()
        if self._stream.isatty():
            self._stream.write("\r\x1b[K")
            self._stream.flush()

    def complete_part(self, images: int) -> None:
        """Count the images of a completed part, duplicates included."""
        self._completed += images
        self._counted = os.path.getsize(self._path)

    def describe_interruption(self) -> str:
        """Return what an interruption at this moment costs, in one line."""
        return (
            f"Interrupted. {self._completed:,} images are complete; {self._unfinished():,} images "
            "of the unfinished part will be processed again. Run the same command again to resume."
        )

    def _unfinished(self) -> int:
        return max(0, os.path.getsize(self._path) - self._counted)

    def _run(self) -> None:
        started: float | None = None
        with open(self._path, "rb") as file:
            while not self._done.wait(self._interval):
                ticks = file.read()
                self._failures += ticks.count(b"-")
                if ticks and started is None:
                    started = time.monotonic() - self._interval
                self._write(
                    format_progress(
                        self._completed + self._unfinished(),
                        self._failures,
                        time.monotonic() - started if started is not None else 0.0,
                        self.total,
                        self._initial,
                        _width(self._stream) - 1 if self._stream.isatty() else None,
                    )
                )

    def _write(self, text: str) -> None:
        self._stream.write(f"\r{text}\x1b[K" if self._stream.isatty() else f"{text}\n")
        self._stream.flush()


def _width(stream: TextIO) -> int:
    """Return the number of columns of a terminal; 80 if it is unknown."""
    try:
        return os.get_terminal_size(stream.fileno()).columns or 80
    except (OSError, ValueError):
        return 80


def format_progress(
    images: int,
    failures: int,
    seconds: float,
    total: int | None,
    initial: int = 0,
    columns: int | None = None,
) -> str:
    """Return the text of a progress report.

    Args:
      images, failures: Numbers of images so far, and of failures among them.
      seconds: Time since the first image of this run.
      total: Number of images in the list; None if unknown.
      initial: Number of images that an earlier run completed; they do not count for the rate.
      columns: Maximum length of the text, which then contains a bar; None for no bar.

    Returns:
      A text such as `1,234 of 5,000 images (25%), 12.3 images/s, 56 failed, 05:06 left`.
    """
    count = "{n:,} of {total:,} images ({percentage:.0f}%)" if total else "{n:,} images"
    rate = ", {rate_noinv:.1f} images/s{postfix}" if seconds else ", starting"
    left = ", {remaining} left" if total and images > initial and seconds else ""
    return tqdm.format_meter(
        images,
        # The list may hold fewer images than it did when they were counted.
        total and max(total, images),
        seconds,
        ncols=columns,
        bar_format=count + rate + left + (" {bar}" if columns and total else ""),
        postfix=f"{failures:,} failed",
        initial=initial,
    )[:columns]
