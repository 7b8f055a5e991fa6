"""The files that an option names: paths, globs and URLs, separated by commas."""

from __future__ import annotations

import os
import re

from apache_beam.io.filesystem import BeamIOError
from apache_beam.io.filesystems import FileSystems

from beam_pipeline.config import UsageError
from beam_pipeline.sources import globs
from beam_pipeline.storage import any_path

_COMPRESSED = (".gz", ".bz2", ".tgz", ".tbz2", ".tar")


def expand(option: str, value: str) -> list[str]:
    """Return the files, folders and URLs that the value of an option names, in its order.

    Args:
      option: The option with its dashes, for error messages.
      value: Paths, globs and URLs, separated by commas.

    Raises:
      UsageError: A path or glob matches no file, or its filesystem cannot be read.
    """
    return [path for part in split(option, value) for path in match(option, part)]


def split(option: str, value: str) -> list[str]:
    """Split a value at its commas, without access to a network.

    The commas in the name of an existing file or folder are part of it. A comma in a URL, or a path
    on an object store, is part of it unless another one or an existing file follows.

    >>> split("--input", "a.csv,gs://bucket/b,c.csv,https://a.example/d,e.csv")
    ['a.csv', 'gs://bucket/b,c.csv', 'https://a.example/d,e.csv']

    Raises:
      UsageError: The value names nothing.
    """
    parts, rest = [], value.split(",")
    while rest:
        taken = _count_parts(rest)
        part = ",".join(rest[:taken])
        parts.append(part if part == value or os.path.lexists(part) else part.strip())
        rest = rest[taken:]
    if not any(parts):
        raise UsageError(f"{option} {value!r} names no file")
    return [part for part in parts if part]


def match(option: str, pattern: str) -> list[str]:
    """Return the files that match a path or glob, sorted; a URL matches itself.

    Raises:
      UsageError: No file matches, or the filesystem cannot be read.
    """
    if any_path.is_url(pattern):
        return [pattern]
    try:
        if any_path.is_local(pattern):
            paths = globs.match(pattern)
        else:
            [result] = FileSystems.match([pattern])
            paths = sorted(file.path for file in result.metadata_list)
    except (OSError, BeamIOError, ValueError) as error:
        raise UsageError(f"{option} {pattern} cannot be read: {error}") from error
    if not paths:
        raise UsageError(f"{option} {pattern} matches no file. Check the path.")
    return paths


def ending(path: str) -> str:
    """Return the ending of a file name in lower case, without those of compression.

    >>> ending("URLS.TSV.gz"), ending("https://a.example/b.csv?c=d.e"), ending("urls")
    ('.tsv', '.csv', '')
    """
    if any_path.is_url(path):
        path = path.partition("#")[0].partition("?")[0]
    stem, suffix = os.path.splitext(path.lower())
    while suffix in _COMPRESSED:
        stem, suffix = os.path.splitext(stem)
    return suffix


def _count_parts(rest: list[str]) -> int:
    """Return how many of the parts between commas the first path consists of."""
    if not any_path.is_local(rest[0]):
        return next((n for n, part in enumerate(rest) if n and _is_path(part)), len(rest))
    lengths = range(len(rest), 1, -1)
    return next((n for n in lengths if _is_one(",".join(rest[:n]))), 1)


def _is_path(part: str) -> bool:
    """Return whether what follows a comma of a URL is another path, glob or URL."""
    return not any_path.is_local(part) or bool(globs.match(part.strip()))


def _is_one(path: str) -> bool:
    """Return whether a local path exists, or is a glob whose commas are all of its folder."""
    folder = re.split("[*?[]", path)[0].rpartition("/")[0]
    is_glob = folder.count(",") == path.count(",")
    return os.path.lexists(path) or (is_glob and os.path.isdir(folder))
