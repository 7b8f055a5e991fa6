"""Tar archives, plain or compressed with gzip or bzip2, WebDataset shards among them.

The images of a plain archive are read by their offset. A compressed archive is read from front to
back, and its images have a `Row` that counts the members.
"""

from __future__ import annotations

import bz2
import contextlib
import gzip
import os
import tarfile
import threading
import zlib
from collections.abc import Iterator, Sequence
from typing import IO, cast

from beam_pipeline.config import Config, UsageError
from beam_pipeline.elements import Extent, ImageRef, Problem, Row
from beam_pipeline.sources import tar_members, webdataset
from beam_pipeline.sources.source import is_image_name, member_ref
from beam_pipeline.sources.tar_members import Member
from beam_pipeline.sources.webdataset import Entry
from beam_pipeline.storage import any_path, ranges

_ENDINGS = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2")
_STREAM_BUFFER = 8 << 20  # bytes of one request to an object store
MAX_OPEN = 4  # archives kept open
# Damage of an archive. An OSError is damage if it is bzip2's or gzip's own, without an errno.
_DAMAGE = (tarfile.TarError, ValueError, LookupError, RecursionError, EOFError, zlib.error, OSError)


def recognizes(path: str, head: bytes) -> bool:
    """Return whether a file is a tar archive by its content or, if damaged, by its ending."""
    if head.startswith(b"\x1f\x8b"):
        with contextlib.suppress(zlib.error):
            head = zlib.decompressobj(31).decompress(head, tarfile.BLOCKSIZE)
    is_bzip2 = head.startswith(b"BZh") and head[4:10] == b"1AY&SY"
    return is_bzip2 or _begins_archive(head) or path.lower().endswith(_ENDINGS)


def read_refs(path: str, config: Config) -> Iterator[ImageRef]:
    """Yield the images of an archive, as a `Source` does."""
    damage: list[ImageRef] = []
    with contextlib.ExitStack() as stack:
        file, is_compressed = _open(path, stack)
        entries = _read_entries(path, file, is_compressed, config, damage)
        ref = None
        for ref in webdataset.join_samples(entries, config.kept_columns):
            yield ref
    yield from damage
    if ref is None and not damage:
        raise UsageError(f"{path} holds no image: no file in it has an image's name")


def read_group(
    refs: Sequence[ImageRef], config: Config
) -> Iterator[tuple[ImageRef, bytes | Problem]]:
    """Read images of a compressed archive, as a `GroupedSource` does.

    The archive stays open for the next call, which continues it.
    """
    rows = [cast(Row, ref.location) for ref in refs]
    if not rows:
        return
    try:
        reader = _take(rows[0].path, rows[0].position)
    except (UsageError, OSError) as error:
        yield from ((ref, Problem("not_found", str(error))) for ref in refs)
        return
    try:
        for ref, row in zip(refs, rows, strict=True):
            yield ref, reader.read(row.position, config.max_image_bytes)
    finally:
        _put_back(reader)


def _read_entries(
    path: str, file: IO[bytes], is_compressed: bool, config: Config, damage: list[ImageRef]
) -> Iterator[Entry]:
    """Yield the images and sidecars of an archive.

    Args:
      path: The archive.
      file: The archive, decompressed.
      is_compressed: Whether images are found by their number.
      config: The options.
      damage: Receives an image that represents what is behind the damage, if there is any.
    """
    end = 0
    try:
        for number, member in enumerate(tar_members.read_members(file)):
            if is_image_name(member.name) or (member.problem and member.name.endswith(".tar")):
                if member.problem is None:
                    tar_members.skip_body(file, member)
                location = (
                    Row(path, 0, number)
                    if is_compressed
                    else Extent(path, member.offset, member.size)
                )
                yield Entry(member.name, _ref(path, member, location, config.max_image_bytes))
            elif webdataset.is_sidecar(member.name):
                yield Entry(member.name, None, _read_sidecar(file, member, config))
            end = member.offset + member.size
    except _DAMAGE as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise UsageError(f"{path} cannot be read: {error}") from error
        detail = f"damaged behind byte {end:,}: {str(error) or type(error).__name__}"
        damage.append(
            ImageRef("", f"{path}#{end}", problem=Problem("corrupt_container", detail[:1000]))
        )


def _ref(path: str, member: Member, location: Extent | Row, max_bytes: int) -> ImageRef:
    problem = _problem(member, max_bytes)
    return member_ref(
        path,
        member.name,
        folder=member.folder,
        location=None if problem else location,
        problem=problem,
    )


def _problem(member: Member, max_bytes: int) -> Problem | None:
    if member.problem is None and member.size > max_bytes:
        return Problem("too_large", f"{member.size:,} bytes, {max_bytes:,} are allowed")
    if member.problem is None and not member.size:
        return Problem("empty", "an image of 0 bytes")
    return member.problem


def _read_sidecar(file: IO[bytes], member: Member, config: Config) -> bytes:
    is_wanted = webdataset.is_read(member.name, member.size, config.kept_columns)
    return b"" if member.problem or not is_wanted else _read_body(file, member)


def _read_body(file: IO[bytes], member: Member) -> bytes:
    file.seek(member.offset)
    data = file.read(member.size)
    if len(data) < member.size:
        raise EOFError(f"the archive ends within {member.name[:300]!r}")
    return data


def _begins_archive(head: bytes) -> bool:
    """Return whether bytes are the beginning of a plain tar archive, which may be empty."""
    block = head[: tarfile.BLOCKSIZE]
    is_empty = len(block) == tarfile.BLOCKSIZE and not any(block)
    return is_empty or tar_members.is_header(block)


def _open(path: str, stack: contextlib.ExitStack) -> tuple[IO[bytes], bool]:
    """Open an archive.

    Returns:
      The archive, decompressed, and whether it is compressed.

    Raises:
      UsageError: The file cannot be read or is not a tar archive.
    """
    try:
        file = stack.enter_context(ranges.open_seekable(path))
        magic = file.read(3)
        file.seek(0)
        is_compressed = magic.startswith(b"\x1f\x8b") or magic == b"BZh"
        if is_compressed:
            packed = stack.enter_context(ranges.open_seekable(path, _STREAM_BUFFER))
            unpack = bz2.open if magic == b"BZh" else gzip.open
            file = cast(IO[bytes], stack.enter_context(unpack(packed)))
        head = file.read(tarfile.BLOCKSIZE)
        file.seek(0)
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise UsageError(f"{path} cannot be read: {str(error) or 'it ends early'}") from error
    if not _begins_archive(head):
        what = "is empty" if not head else "is not a tar archive, in spite of its name"
        raise UsageError(f"{path} {what}: check the file")
    return file, is_compressed


class _Reader:
    """An open archive, read from front to back.

    Attributes:
      path: The archive.
      stamp: What identifies the content of the file.
      next: Number of the next member.
      is_finished: Whether its end or damage was reached.
    """

    def __init__(self, path: str):
        self.path, self.stamp, self.next, self.is_finished = path, _stamp(path), 0, False
        with contextlib.ExitStack() as stack:
            self._file, _ = _open(path, stack)
            self._stack = stack.pop_all()
        self._members = enumerate(tar_members.read_members(self._file))

    def read(self, number: int, max_bytes: int) -> bytes | Problem:
        """Return the body of a member that has not been passed yet, or why it has none."""
        try:
            for index, member in self._members:
                self.next = index + 1
                if index == number:
                    problem = _problem(member, max_bytes)
                    return _read_body(self._file, member) if problem is None else problem
            raise EOFError("the archive ends before the image, which was there when it was listed")
        except _DAMAGE as error:
            self.is_finished = True
            is_damage = not isinstance(error, OSError) or error.errno is None
            detail = (str(error) or type(error).__name__)[:1000]
            return Problem("corrupt_container" if is_damage else "not_found", detail)

    def close(self) -> None:
        self._stack.close()


_idle: list[_Reader] = []
_idling = threading.Lock()


def _take(path: str, number: int) -> _Reader:
    """Return an open archive that has not passed a member."""
    stamp = _stamp(path)
    with _idling:
        usable = [
            reader
            for reader in _idle
            if (reader.path, reader.stamp) == (path, stamp) and reader.next <= number
        ]
        if usable:
            reader = max(usable, key=lambda reader: reader.next)
            _idle.remove(reader)
            return reader
    return _Reader(path)


def _put_back(reader: _Reader) -> None:
    """Keep an archive open for the next call, and close the one that was unused for longest."""
    with _idling:
        if not reader.is_finished:
            _idle.append(reader)
            if len(_idle) <= MAX_OPEN:
                return
            reader = _idle.pop(0)
    reader.close()


def _stamp(path: str) -> tuple[int, ...]:
    """Return numbers that change when another file takes the place of a local one."""
    if not any_path.is_local(path):
        return ()
    status = os.stat(path)
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns
