"""Zip archives: each image is read by its offset, and inflated if it is deflated."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import IO

from beam_pipeline.config import Config, UsageError
from beam_pipeline.elements import Extent, ImageRef, Problem
from beam_pipeline.sources import zip_directory
from beam_pipeline.sources.source import is_image_name, member_ref
from beam_pipeline.sources.zip_directory import DEFLATED, STORED, ZipEntry, ZipError
from beam_pipeline.storage import ranges

_MAGIC = (b"PK\x03\x04", b"PK\x05\x06")
_HEADER_BUFFER = 512  # bytes of one request to an object store


def recognizes(path: str, head: bytes) -> bool:
    return head.startswith(_MAGIC) or path.lower().endswith(".zip")


def read_refs(path: str, config: Config) -> Iterator[ImageRef]:
    """Yield the images of an archive, in the order of its directory, as a `Source` does."""
    count = 0
    try:
        with contextlib.ExitStack() as stack:
            directory = stack.enter_context(ranges.open_seekable(path))
            headers = stack.enter_context(ranges.open_seekable(path, _HEADER_BUFFER))
            _check_magic(path, headers)
            for entry in _read_files(path, directory):
                if is_image_name(entry.name):
                    count += 1
                    yield _ref(path, entry, headers, config.max_image_bytes)
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error}") from error
    except ZipError as error:
        count += 1
        yield ImageRef(
            "", f"{path}#damage-{count}", problem=Problem("corrupt_container", str(error))
        )
    if not count:
        raise UsageError(f"{path} holds no image: no file in it has an image's name")


def _check_magic(path: str, file: IO[bytes]) -> None:
    head = file.read(4)
    if not head.startswith(_MAGIC):
        what = "is empty" if not head else "is not a zip archive, in spite of its name"
        raise UsageError(f"{path} {what}: check the file")


def _read_files(path: str, directory: IO[bytes]) -> Iterator[ZipEntry]:
    """Yield the entries that are not folders.

    Raises:
      UsageError: The first of them is encrypted.
    """
    is_first = True
    for entry in zip_directory.read_entries(directory):
        if entry.name.endswith("/"):
            continue
        if is_first and entry.is_encrypted:
            raise UsageError(f"{path} is encrypted: decrypt it first")
        is_first = False
        yield entry


def _ref(path: str, entry: ZipEntry, headers: IO[bytes], max_bytes: int) -> ImageRef:
    problem, location = _problem(entry, max_bytes), None
    if problem is None:
        try:
            offset = zip_directory.find_data(headers, entry)
            location = Extent(path, offset, entry.stored_size, entry.method == DEFLATED)
        except (ZipError, ValueError, OverflowError) as error:
            problem = Problem("corrupt_container", str(error))
    folder = "/".join(part for part in entry.name.split("/")[:-1] if part not in ("", "."))
    return member_ref(path, entry.name, folder=folder, location=location, problem=problem)


def _problem(entry: ZipEntry, max_bytes: int) -> Problem | None:
    if entry.is_encrypted:
        return Problem("unsupported_member", "the member is encrypted")
    if entry.is_link:
        return Problem("unsupported_member", "the member is a link, not a file with its bytes")
    if entry.method not in (STORED, DEFLATED):
        return Problem("unsupported_member", f"the member is compressed by method {entry.method}")
    # Deflating makes a file larger by at most 5 bytes in 16 KiB, and a few.
    if entry.size > max_bytes or entry.stored_size > max_bytes + max_bytes // 1000 + 64:
        return Problem("too_large", f"{entry.size:,} bytes, {max_bytes:,} are allowed")
    return None
