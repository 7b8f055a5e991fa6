"""Splits the list into commits.

Each commit is one run of the graph, so that an interrupted run loses at most one commit.
"""

from __future__ import annotations

import collections
import hashlib
import itertools
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from beam_pipeline.config import (
    FIRST_PART,
    MAX_PART,
    MAX_PART_PER_PROCESS,
    MIN_PART,
    PART_SECONDS,
    Config,
    UsageError,
)
from beam_pipeline.elements import Commit, ImageRef
from beam_pipeline.metadata.commit_manifest import CommitManifest
from beam_pipeline.sources import listing


class ListChangedError(UsageError):
    """The list differs from the one that the first commits were made from."""


class _Names:
    """A set of image names, 16 bytes each.

    A list of 14 million images takes 224 MB, and briefly three times that.
    """

    def __init__(self) -> None:
        self._sorted = np.empty(0, "S16")

    def add(self, refs: Sequence[ImageRef]) -> list[ImageRef]:
        """Add the names of images; return the images whose names are new."""
        names = np.array([bytes.fromhex(ref.name[:32]) for ref in refs], "S16")
        indices = np.searchsorted(self._sorted, names)
        known = np.zeros(len(names), bool)
        inside = indices < len(self._sorted)
        known[inside] = self._sorted[indices[inside]] == names[inside]
        new = np.unique(names[~known])
        self._sorted = np.insert(self._sorted, np.searchsorted(self._sorted, new), new)
        return [ref for ref, is_known in zip(refs, known, strict=True) if not is_known]


class PartSize:
    """The number of images in the next part: as many as take about `PART_SECONDS`."""

    def __init__(self, workers: int = 1, fixed: int | None = None):
        """Initialize the size of the first part.

        Args:
          workers: Number of worker processes.
          fixed: A size that is not adapted; None for one by the measured rate.
        """
        self._workers, self._is_fixed = workers, fixed is not None
        self._size = fixed or min(FIRST_PART * workers, MAX_PART)

    def __call__(self) -> int:
        return self._size

    def adapt(self, images: int, seconds: float) -> None:
        """Adapt the size to the rate at which a part was processed."""
        if images and seconds > 0 and not self._is_fixed:
            size = round(images / seconds * PART_SECONDS)
            self._size = min(max(size, MIN_PART), MAX_PART_PER_PROCESS * self._workers, MAX_PART)


def plan(
    config: Config, size: Callable[[], int], done: Sequence[CommitManifest]
) -> Iterator[Commit]:
    """Split the rest of the list into commits.

    Args:
      config: The options.
      size: Returns the number of images in the next commit, at least 1; called before each.
      done: The completed commits; the list continues after them.

    Yields:
      The commits, in order.

    Raises:
      ListChangedError: The list differs from the one that the completed commits were made from.
      UsageError: The list cannot be read.
    """
    counts: collections.Counter[str] = collections.Counter()
    # Each image with the number of lines, and of ignored lines, up to and including its own.
    images = (
        (ref, counts["lines"], counts["ignored"]) for ref in listing.read_refs(config, counts)
    )
    names, digest = _Names(), hashlib.sha256(listing.identify_containers(config).encode())

    def take(number: int, *head: tuple[ImageRef, int, int]) -> list[tuple[ImageRef, int, int]]:
        taken = [*head, *itertools.islice(images, number - len(head))]
        for ref, _, _ in taken:
            described = f"{ref.name} {ref.image_class} {ref.location}{ref.fallback or ''}"
            digest.update(described.encode(errors="replace"))
        return taken

    lines = sum(manifest.counts.get("lines", 0) for manifest in done)
    ignored = sum(manifest.counts.get("ignored", 0) for manifest in done)
    left = lines - ignored
    while left and (skipped := take(min(left, 100_000))):
        names.add([ref for ref, _, _ in skipped])
        left -= len(skipped)
    if done and (left or digest.hexdigest() != done[-1].list_digest):
        raise ListChangedError(
            f"{config.input or config.images} has changed since the run began; "
            "--overwrite starts again"
        )

    head: list[tuple[ImageRef, int, int]] = []
    for number in itertools.count(len(done)):
        batch = take(size(), *head)
        list_digest, head = digest.hexdigest(), list(itertools.islice(images, 1))
        is_last = not head
        end_lines, end_ignored = (counts["lines"], counts["ignored"]) if is_last else batch[-1][1:]
        fresh = names.add([ref for ref, _, _ in batch])
        part = {
            "lines": end_lines - lines,
            "ignored": end_ignored - ignored,
            "duplicates": len(batch) - len(fresh),
        }
        # The order of a hash separates neighbours of the list, which share a host and a class.
        fresh.sort(key=lambda ref: ref.name)
        yield Commit(number, fresh, part, is_last, list_digest)
        if is_last:
            return
        lines, ignored = end_lines, end_ignored
