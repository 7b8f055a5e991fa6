"""Folders: every image file in them, at any depth."""

from __future__ import annotations

import os
from collections.abc import Iterator

from beam_pipeline.config import Config, UsageError
from beam_pipeline.elements import ImageRef, Problem
from beam_pipeline.sources.image_file import file_ref
from beam_pipeline.sources.source import is_image_name
from beam_pipeline.storage import any_path, filesystem


def recognizes(path: str, unused_head: bytes) -> bool:
    """Return whether a path is a folder; on an object store, one that ends in a slash."""
    return os.path.isdir(path) if any_path.is_local(path) else path.endswith("/")


def read_refs(path: str, unused_config: Config) -> Iterator[ImageRef]:
    """Yield the images of a folder, sorted, as a `Source` does.

    Folders that are symbolic links are not followed, so that there are no cycles.
    """
    ref = None
    for ref in _walk(path) if any_path.is_local(path) else _read_store(path):
        yield ref
    if ref is None:
        raise UsageError(f"{path} holds no image: no file in it has an image's name")


def _walk(folder: str) -> Iterator[ImageRef]:
    """Yield the images of a local folder; the names of one folder at a time are in memory."""
    pending = [iter([folder])]
    while pending:
        path = next(pending[-1], None)
        if path is None:
            pending.pop()
        elif not path.endswith("/") and path != folder:
            yield file_ref(path)
        else:
            try:
                pending.append(iter(_list_folder(path)))
            except OSError as error:
                if path == folder:
                    raise UsageError(f"{path} cannot be read: {error}") from error
                yield ImageRef("", path, problem=Problem("not_found", str(error)))


def _list_folder(folder: str) -> list[str]:
    """Return the paths of a folder's images and folders, sorted; those of folders end in a slash.

    Links and files of any kind count, if they have an image's name: reading them shows what they
    are.
    """
    with os.scandir(folder) as entries:
        return sorted(
            f"{entry.path}/" if entry.is_dir() else entry.path
            for entry in entries
            if (entry.is_dir(follow_symlinks=False))
            or (is_image_name(entry.name) and not entry.is_dir())
        )


def _read_store(folder: str) -> Iterator[ImageRef]:
    try:
        for path in filesystem.iterate_files(folder):
            if is_image_name(path):
                yield file_ref(path)
    except Exception as error:  # each client has its own kinds of errors
        raise UsageError(f"{folder} cannot be read: {error}") from error
