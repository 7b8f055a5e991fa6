"""Bodies that many URLs returned, which are rarely photographs.

They are counted by their sha256, in little memory.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable

import numpy as np

from beam_pipeline.config import MAX_REPEATED, REPEATED
from beam_pipeline.storage import filesystem


@dataclasses.dataclass(frozen=True)
class Repeat:
    """A body that was downloaded several times.

    Attributes:
      sha256: Digest of the body, in hex.
      count: How often it was downloaded.
      url: One URL that returned it.
    """

    sha256: str
    count: int
    url: str


def merge(repeats: Iterable[tuple[int, str]]) -> tuple[int, str]:
    """Add up the counts of a body and keep the alphabetically first URL.

    The choice of the URL makes the result the same for each run.

    Args:
      repeats: Counts and URLs.
    """
    repeats = list(repeats)
    return sum(count for count, _ in repeats), min(url for _, url in repeats)


def write(path: str, repeats: Iterable[Repeat]) -> None:
    """Write the bodies of a commit, one per line.

    Without bodies no file is written: Beam cannot write an empty one to S3.
    """
    if lines := "".join(json.dumps(dataclasses.astuple(repeat)) + "\n" for repeat in repeats):
        filesystem.write_bytes(path, lines.encode())


def read(path: str) -> list[Repeat]:
    return [Repeat(*json.loads(line)) for line in filesystem.read_bytes(path).splitlines()]


def most_repeated(paths: Iterable[str]) -> list[Repeat]:
    """Return the most frequent bodies over all commits, the most frequent first.

    The files are read twice: once to find which of millions of digests repeat, by 8 bytes of each,
    and once to read those.

    Args:
      paths: The files of the commits' bodies.

    Returns:
      At most MAX_REPEATED bodies, each downloaded at least REPEATED times.
    """
    paths = list(paths)
    parts = [
        np.array([(_key(body.sha256), body.count) for body in read(path)], np.uint64).reshape(-1, 2)
        for path in paths
    ]
    keys, counts = np.concatenate([np.empty((0, 2), np.uint64), *parts]).T
    distinct, indices = np.unique(keys, return_inverse=True)
    frequent = set(distinct[np.bincount(indices, counts, len(distinct)) >= REPEATED].tolist())
    found: dict[str, tuple[int, str]] = {}
    for path in paths:
        for body in read(path):
            if _key(body.sha256) in frequent:
                earlier = [found[body.sha256]] if body.sha256 in found else []
                found[body.sha256] = merge([(body.count, body.url), *earlier])
    repeats = [
        Repeat(digest, count, url) for digest, (count, url) in found.items() if count >= REPEATED
    ]
    return sorted(repeats, key=lambda repeat: (-repeat.count, repeat.sha256))[:MAX_REPEATED]


def _key(digest: str) -> int:
    return int(digest[:16], 16)
