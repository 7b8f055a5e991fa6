"""The kinds of inputs, and which of them a file is."""

from __future__ import annotations

import os

from beam_pipeline.config import Config, UsageError
from beam_pipeline.sources import (
    image_file,
    image_folder,
    json_lines,
    parquet_images,
    parquet_table,
    tar_archives,
    text_lines,
    text_list,
    url_table,
    zip_archives,
)
from beam_pipeline.sources.source import HEAD_BYTES, GroupedSource, Source, is_image_name
from beam_pipeline.storage import ranges

# In the order in which they are asked. A text list is what is nothing else; so is an image file.
INPUT_SOURCES: tuple[Source, ...] = (parquet_table, json_lines, url_table, text_list)
IMAGE_SOURCES: tuple[Source, ...] = (
    image_folder,
    tar_archives,
    zip_archives,
    parquet_images,
    image_file,
)
GROUPED_SOURCES: tuple[GroupedSource, ...] = (tar_archives, parquet_images)


def find_input(path: str, config: Config) -> Source:
    """Return the kind of a file of `--input`.

    Raises:
      UsageError: The file cannot be read, or is a folder.
    """
    if os.path.isdir(path):
        raise UsageError(
            f"{path} is a folder: give it as --images; its images are read recursively"
        )
    head = text_lines.read_head(path, config)
    return next(source for source in INPUT_SOURCES if source.recognizes(path, head))


def find_images(path: str) -> Source:
    """Return the kind of a file or folder of `--images`."""
    head = _read_head(path)
    return next(source for source in IMAGE_SOURCES if source.recognizes(path, head))


def find_grouped(path: str) -> GroupedSource:
    """Return the kind of a file whose images have a `Row`."""
    head = _read_head(path)
    return next(source for source in GROUPED_SOURCES if source.recognizes(path, head))


def _read_head(path: str) -> bytes:
    """Return the beginning of a file; empty for folders, and for images, which need no look.

    A file that cannot be read has none either: reading its images reports it.
    """
    if image_folder.recognizes(path, b"") or is_image_name(path):
        return b""
    try:
        with ranges.open_seekable(path, HEAD_BYTES) as file:
            return file.read(HEAD_BYTES)
    except OSError:
        return b""
