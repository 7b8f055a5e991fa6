"""Globs of files on this machine. Beam's own skip names with a backslash and take every bracket for a pattern."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator


def match(pattern: str) -> list[str]:
    """Return the files that a path or glob names, sorted.

    `*` and `?` match within one name, `**` across folders, and `[12]` one of its characters or, as names may hold brackets,
    its own text. A path without `*` and `?` that exists is itself alone, and so are the folders before the first of those:
    so every path matches itself, and a file that is called `*` hides no other. A pattern that ends in a slash takes all files
    of that folder.
    """
    if pattern.endswith("/"):
        pattern += "*"
    if not set(pattern) & set("*?") and os.path.lexists(pattern):
        return [pattern]
    folder, glob = _split(pattern)
    depth = None if "**" in glob else glob.count("/")
    wanted = re.compile(_translate(glob), re.DOTALL)
    return sorted(folder + path for path in _walk(folder or ".", depth) if wanted.fullmatch(path))


def _split(pattern: str) -> tuple[str, str]:
    """Split a pattern behind the last of the folders that exist as they are spelled, before any `*` or `?`."""
    place = 0
    for slash in re.finditer("/", pattern):
        folder = pattern[: slash.end()]
        if set(folder) & set("*?") or not os.path.isdir(folder):
            break
        place = slash.end()
    return pattern[:place], pattern[place:]


def _walk(folder: str, depth: int | None) -> Iterator[str]:
    """Paths of the files in a folder and, down to a depth, in folders below it; relative to it."""
    for path, folders, names in os.walk(folder):
        below = os.path.relpath(path, folder)
        if depth is not None and (0 if below == "." else below.count("/") + 1) >= depth:
            folders.clear()
        yield from names if below == "." else (f"{below}/{name}" for name in names)


def _translate(glob: str) -> str:
    """A regular expression for a glob."""
    tokens = re.findall(r"\*\*|\*|\?|\[!?\]?[^\]]*\]|.", glob, re.DOTALL)
    known = {"**": ".*", "*": "[^/]*", "?": "[^/]"}
    return "".join(known.get(token) or (_brackets(token) if len(token) > 1 else re.escape(token)) for token in tokens)


def _brackets(token: str) -> str:
    inside = token[1:-1]
    # Escaped, but for the ranges.
    characters = re.escape(inside.removeprefix("!")).replace(r"\-", "-")
    one = f"(?!/)[{'^' * inside.startswith('!')}{characters}]"
    try:
        re.compile(one)
    except re.error:  # a range that runs backwards
        return re.escape(token)
    return f"(?:{one}|{re.escape(token)})"
