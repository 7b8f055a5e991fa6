"""The progress of a run, for a person."""

from __future__ import annotations

import os
import threading
import time
from collections import Counter
from typing import TextIO

from tqdm import tqdm

from beam_pipeline.transforms.ticks import Tally, TallySource

LINE_INTERVAL = 30.0  # seconds between lines in a log file


class Progress:
    """A context manager that reports the progress of a run on a stream.

    On a terminal, it rewrites a line at each interval; elsewhere it writes a line every 30 seconds.

    Attributes:
      total: Number of images in the list, once it is known.
    """

    def __init__(
        self,
        source: TallySource,
        stream: TextIO,
        images: int = 0,
        failures: int = 0,
        interval: float = LINE_INTERVAL,
        terminal_interval: float = 1.0,
    ):
        """Initialize the report.

        Args:
          source: Returns what workers have counted.
          stream: Receives the report.
          images, failures: Numbers of images, and of failures among them, in the parts that an
            earlier run completed.
          interval, terminal_interval: Seconds between lines; the second one on a terminal.
        """
        self.total: int | None = None
        self._source, self._stream = source, stream
        self._initial = self._completed = images
        self._failures = failures
        self._interval = terminal_interval if stream.isatty() else interval
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

    def complete_part(self, images: int, failures: int | None = None) -> None:
        """Count a completed part.

        Args:
          images: Number of its images, duplicates included.
          failures: Number of failures among them; None if the source of the counts still has it.
        """
        if failures is None:
            failures = self._source.read().failures
        self._failures += failures
        self._completed += images
        self._source.next_part()

    def describe_interruption(self) -> str:
        """Return what an interruption at this moment costs, in one line."""
        unfinished = self._source.read().images
        return (
            f"Interrupted. {self._completed:,} images are complete; {unfinished:,} images "
            "of the unfinished part will be processed again. Run the same command again to resume."
        )

    def _run(self) -> None:
        started: float | None = None
        while not self._done.wait(self._interval):
            completed, tally = self._completed, self._source.read()
            images = completed + tally.images
            if images > self._initial and started is None:
                started = time.monotonic() - self._interval
            self._write(
                format_progress(
                    images,
                    self._failures + tally.failures,
                    time.monotonic() - started if started is not None else 0.0,
                    self.total,
                    self._initial,
                    _width(self._stream) - 1 if self._stream.isatty() else None,
                    describe_tally(tally),
                )
            )

    def _write(self, text: str) -> None:
        self._stream.write(f"\r{text}\x1b[K" if self._stream.isatty() else f"{text}\n")
        self._stream.flush()


def describe_tally(tally: Tally) -> str:
    """Return reasons of failures and times by stage, of the unfinished part, if they are known.

    For example `; failed: 40 http_404, 16 timeout; ms an image: fetch 0.5, decode 5.1`.
    """
    lists = {
        "failed": [
            f"{number:,} {reason}" for reason, number in Counter(tally.reasons).most_common(3)
        ],
        "ms an image": [
            f"{stage} {microseconds / 1000 / tally.images:.1f}"
            for stage, microseconds in tally.microseconds.items()
            if tally.images
        ],
    }
    return "".join(f"; {name}: {', '.join(items)}" for name, items in lists.items() if items)


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
    details: str = "",
) -> str:
    """Return the text of a progress report.

    Args:
      images, failures: Numbers of images so far, and of failures among them.
      seconds: Time since the first image of this run.
      total: Number of images in the list; None if unknown.
      initial: Number of images that an earlier run completed; they do not count for the rate.
      columns: Maximum length of the text, which then contains a bar; None for no bar.
      details: Further text.

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
        bar_format=count
        + rate
        + left
        + details.replace("{", "{{").replace("}", "}}")
        + (" {bar}" if columns and total else ""),
        postfix=f"{failures:,} failed",
        initial=initial,
    )[:columns]
