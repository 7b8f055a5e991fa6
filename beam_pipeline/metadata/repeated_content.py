"""Bodies that stood behind many URLs, which are rarely photographs. Counted by their sha256, in little memory."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from beam_pipeline.config import REPEATED, REPEATED_TOLD
from beam_pipeline.storage import filesystem


class Repeat(NamedTuple):
    """The sha256 of a body, in hex, how often it came, and one URL behind which it stood."""

    sha256: str
    times: int
    url: str


def merge(repeats: Iterable[tuple[int, str]]) -> tuple[int, str]:
    """Adds up how often a body came, and keeps the first of the URLs in order, so that each run tells the same."""
    repeats = list(repeats)
    return sum(count for count, _ in repeats), min(url for _, url in repeats)


def write(path: str, repeats: Iterable[Repeat]) -> None:
    """Writes the bodies of a commit, one a line; none, no file: Beam cannot write an empty one to S3."""
    if lines := "".join(json.dumps(repeat) + "\n" for repeat in repeats):
        filesystem.write_bytes(path, lines.encode())


def read(path: str) -> list[Repeat]:
    return [Repeat(*json.loads(line)) for line in filesystem.read_bytes(path).splitlines()]


def most_repeated(paths: Iterable[str]) -> list[Repeat]:
    """The bodies that came most often, over all commits: at least REPEATED times, and at most REPEATED_TOLD of them.

    The files are read twice: once to find which of millions of digests repeat, by 8 bytes of each, and once for those.
    """
    paths = list(paths)
    parts = [np.array([(_key(digest), count) for digest, count, _ in read(path)], np.uint64).reshape(-1, 2) for path in paths]
    keys, counts = np.concatenate([np.empty((0, 2), np.uint64), *parts]).T
    distinct, places = np.unique(keys, return_inverse=True)
    frequent = set(distinct[np.bincount(places, counts, len(distinct)) >= REPEATED].tolist())
    found: dict[str, tuple[int, str]] = {}
    for path in paths:
        for digest, count, url in read(path):
            if _key(digest) in frequent:
                found[digest] = merge([(count, url), *([found[digest]] if digest in found else [])])
    repeats = [Repeat(digest, count, url) for digest, (count, url) in found.items() if count >= REPEATED]
    return sorted(repeats, key=lambda repeat: (-repeat.times, repeat.sha256))[:REPEATED_TOLD]


def _key(digest: str) -> int:
    return int(digest[:16], 16)
