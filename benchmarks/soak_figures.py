"""Memory, open files and threads of a command over time, and whether they are flat."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import os
import statistics
from collections.abc import Sequence
from pathlib import Path

from scipy import stats

from beam_pipeline.sources import tar_archives
from beam_pipeline.storage import ranges

WARM_UP = 1 / 3  # share of a run that is left out
KEPT_OPEN = ranges.MAX_OPEN + tar_archives.MAX_OPEN  # files of the input, by each process
STRETCHES = 10  # whose lowest values are fitted: a part closes what it opens, and a leak stays
MIN_STRETCHES = 5
# Largest rise over the rest of a run that counts as none: a share of the median, or an amount.
TOLERANCES = {"megabytes": (0.05, 10.0), "files": (0.0, 3.0), "threads": (0.0, 3.0)}


@dataclasses.dataclass(frozen=True)
class Sample:
    """Resources of a command and its descendants at a moment.

    Attributes:
      seconds: Since the command was started.
      images: Number of images in the parts that are complete.
      megabytes: Sum of the resident memory.
      files: Number of open files and sockets, without the files of the input that a process keeps
        open: up to `KEPT_OPEN` different ones.
      threads: Number of threads.
      processes: Number of processes.
    """

    seconds: float
    images: int
    megabytes: float
    files: int
    threads: int
    processes: int


@dataclasses.dataclass(frozen=True)
class Trend:
    """The course of a figure after the warm-up.

    Attributes:
      median: Of all samples.
      rise: Of the fitted line, from the first sample to the last.
      is_flat: Whether the rise is within the tolerance.
    """

    median: float
    rise: float
    is_flat: bool


def descendants(process: int) -> list[int]:
    """Return a process and its descendants; those that have ended are left out."""
    found = [process]
    with contextlib.suppress(OSError):
        for path in Path(f"/proc/{process}/task").glob("*/children"):
            with contextlib.suppress(OSError):
                for child in path.read_text().split():
                    found += descendants(int(child))
    return found


def take_sample(process: int, source: Path, seconds: float, images: int) -> Sample:
    """Take a sample of a process and its descendants.

    Args:
      process: Its number.
      source: The folder of its input.
      seconds, images: See `Sample`.
    """
    page = os.sysconf("SC_PAGE_SIZE")
    bytes_used = files = threads = processes = 0
    for one in descendants(process):
        # A process may end meanwhile.
        with contextlib.suppress(OSError):
            folder = Path(f"/proc/{one}")
            used = int((folder / "statm").read_text().split()[1]) * page
            opened, running = _count_files(folder / "fd", source), len(os.listdir(folder / "task"))
            bytes_used, files, threads = bytes_used + used, files + opened, threads + running
            processes += 1
    return Sample(seconds, images, bytes_used / 1e6, files, threads, processes)


def _count_files(descriptors: Path, source: Path) -> int:
    """Count the descriptors of a process, except those of the input that it keeps open."""
    count, kept, prefix = 0, set(), f"{source.resolve()}{os.sep}"
    for descriptor in descriptors.iterdir():
        target = ""
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            target = os.readlink(descriptor)
        count += bool(target)
        if target.startswith(prefix):
            kept.add(target)
    return count - min(len(kept), KEPT_OPEN)


def steady(samples: Sequence[Sample]) -> list[Sample]:
    """Return the samples between the first complete part and the last one, without the warm-up."""
    if not samples:
        return []
    most = max(sample.images for sample in samples)
    during = [sample for sample in samples if 0 < sample.images < most]
    return during[int(len(during) * WARM_UP) :]


def fit(samples: Sequence[Sample], figure: str) -> Trend:
    """Fit a line to the lowest values of a figure in stretches of a steady run, by Theil and Sen.

    The line is the median of slopes, so that single outliers do not move it.

    Raises:
      ValueError: There are too few samples.
    """
    if len(samples) < MIN_STRETCHES:
        raise ValueError(f"{len(samples)} samples are too few to see a trend: give more minutes")
    values = [getattr(sample, figure) for sample in samples]
    stretches = min(STRETCHES, len(samples))
    bounds = [len(samples) * index // stretches for index in range(stretches + 1)]
    pieces = [slice(first, last) for first, last in itertools.pairwise(bounds)]
    times = [statistics.median(sample.seconds for sample in samples[piece]) for piece in pieces]
    slope = stats.theilslopes([min(values[piece]) for piece in pieces], times)[0]
    median, rise = statistics.median(values), slope * (samples[-1].seconds - samples[0].seconds)
    share, amount = TOLERANCES[figure]
    return Trend(median, rise, rise <= max(share * median, amount))


def rate(samples: Sequence[Sample]) -> float | None:
    """Return images a second between the first complete part and the last one, if there are two."""
    steps = [after for before, after in itertools.pairwise(samples) if after.images > before.images]
    if len(steps) < 2 or steps[-1].seconds <= steps[0].seconds:
        return None
    return (steps[-1].images - steps[0].images) / (steps[-1].seconds - steps[0].seconds)


def at_even_times(samples: Sequence[Sample], rows: int) -> list[Sample]:
    """Return at most `rows` samples at even distances, the first and the last among them."""
    if len(samples) <= rows:
        return list(samples)
    return [samples[round(index * (len(samples) - 1) / (rows - 1))] for index in range(rows)]


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Return a table in Markdown.

    >>> print(table(["a", "b"], [[1, "x"]]))
    | a | b |
    | --- | --- |
    | 1 | x |
    """

    def line(cells: Sequence[object]) -> str:
        return f"| {' | '.join(map(str, cells))} |"

    return "\n".join([line(head), line(["---"] * len(head)), *map(line, rows)])
