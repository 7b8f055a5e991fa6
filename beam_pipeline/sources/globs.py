"""Globs of local files.

Beam's own globs skip names with a backslash and interpret every bracket as a pattern.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator


def match(pattern: str) -> list[str]:
    """Return the files that match a path or glob, sorted.

    `*` and `?` match within one name and `**` matches across folders. `[12]` matches one of its
    characters or, because names may contain brackets, its own text.

    An existing path without `*` and `?` matches only itself. The existing folders before the first
    `*` or `?` are also taken literally. Therefore every path matches itself, and a file named `*`
    does not hide other files.

    Args:
      pattern: A path or glob. One that ends in a slash matches all files of that folder.
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
    """Split a pattern after the last folder that exists as spelled, before any `*` or `?`."""
    end = 0
    for slash in re.finditer("/", pattern):
        folder = pattern[: slash.end()]
        if set(folder) & set("*?") or not os.path.isdir(folder):
            break
        end = slash.end()
    return pattern[:end], pattern[end:]


def _walk(folder: str, depth: int | None) -> Iterator[str]:
    """Yield the files in a folder and its subfolders.

    Args:
      folder: The folder.
      depth: Maximum number of subfolders in a path; None for no limit.

    Yields:
      Paths relative to the folder.
    """
    for path, folders, names in os.walk(folder):
        below = os.path.relpath(path, folder)
        if depth is not None and (0 if below == "." else below.count("/") + 1) >= depth:
            folders.clear()
        yield from names if below == "." else (f"{below}/{name}" for name in names)


def _translate(glob: str) -> str:
    """Return the regular expression for a glob."""
    tokens = re.findall(r"\*\*|\*|\?|\[!?\]?[^\]]*\]|.", glob, re.DOTALL)
    known = {"**": ".*", "*": "[^/]*", "?": "[^/]"}
    return "".join(
        known.get(token) or (_brackets(token) if len(token) > 1 else re.escape(token))
        for token in tokens
    )


def _brackets(token: str) -> str:
    inside = token[1:-1]
    # All characters are escaped, except the hyphens of ranges.
    characters = re.escape(inside.removeprefix("!")).replace(r"\-", "-")
    one = f"(?!/)[{'^' * inside.startswith('!')}{characters}]"
    try:
        re.compile(one)
    except re.error:  # a reversed range, such as [z-a]
        return re.escape(token)
    return f"(?:{one}|{re.escape(token)})"
