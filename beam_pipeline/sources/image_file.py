"""Single image files of any name."""

from __future__ import annotations

import re
from collections.abc import Iterator

from beam_pipeline.config import Config, UsageError
from beam_pipeline.elements import Extent, ImageRef
from beam_pipeline.sources.source import is_image_name, stem
from beam_pipeline.storage import ranges

_HEAD = 4096  # bytes in which the first URL of a list is looked for


def recognizes(unused_path: str, unused_head: bytes) -> bool:
    """Return True: what is nothing else may be an image, and decoding it decides."""
    return True


def read_refs(path: str, unused_config: Config) -> Iterator[ImageRef]:
    """Yield the file as an image.

    Raises:
      UsageError: The file is a list of URLs.
    """
    if not is_image_name(path) and _holds_urls(path):
        raise UsageError(f"{path} is a list of URLs: give it as --input")
    yield file_ref(path)


def file_ref(path: str) -> ImageRef:
    """Return the image of a file: its path is its URL, and its stem its ID."""
    folder = path.rpartition("/")[0]
    return ImageRef(stem(path), path, location=Extent(path), folder=folder)


def _holds_urls(path: str) -> bool:
    try:
        with ranges.open_seekable(path, _HEAD) as file:
            head = file.read(_HEAD)
    except OSError:
        return False  # reading the image reports it
    # A table has its first URL behind the header.
    lines = [line for line in head.splitlines() if line.strip() and not line.startswith(b"#")][:2]
    return b"\0" not in head and any(re.search(rb"https?://", line) for line in lines)
