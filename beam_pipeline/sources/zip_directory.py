"""The central directory of a zip archive, read entry by entry.

The standard library's reader keeps the complete directory in memory, about a gigabyte for ImageNet.
The format is that of PKWARE's APPNOTE.TXT, sections 4.3 and 4.5.3.
"""

from __future__ import annotations

import stat
import struct
from collections.abc import Iterator
from typing import IO, NamedTuple

STORED, DEFLATED = 0, 8  # methods
_END = struct.Struct("<4s4H2LH")
_END64 = struct.Struct("<4sQ2H2L4Q")
_LOCATOR64_SIZE = 20
_ENTRY = struct.Struct("<4s6H3L5H2L")
_LOCAL = struct.Struct("<4s5H3L2H")
_MAX_COMMENT = 0xFFFF
_UNIX = 3
_IN_EXTRA = 0xFFFFFFFF  # instead of a number that takes 64 bits


class ZipError(Exception):
    """An archive is damaged."""


class ZipEntry(NamedTuple):
    """An entry of the directory.

    Attributes:
      name: The member's name; bytes that are not UTF-8, though flagged so, are surrogates.
      method: How it is compressed.
      is_encrypted: Whether it needs a password.
      is_link: Whether it is a symbolic link.
      stored_size: Number of bytes in the archive.
      size: Number of bytes of the file.
      header: Position of the local header.
    """

    name: str
    method: int
    is_encrypted: bool
    is_link: bool
    stored_size: int
    size: int
    header: int


def read_entries(file: IO[bytes]) -> Iterator[ZipEntry]:
    """Yield the entries of an archive, in the order of its directory.

    Raises:
      ZipError: The directory is missing or damaged.
    """
    start, end, shift = _find_directory(file)
    file.seek(start)
    position = start
    while position < end:
        fields = _ENTRY.unpack(_read(file, _ENTRY.size))
        if fields[0] != b"PK\x01\x02":
            raise ZipError(f"no entry of the directory at byte {position:,}")
        name_size, extra_size, comment_size = fields[10:13]
        name, extra = _read(file, name_size), _read(file, extra_size)
        _read(file, comment_size)
        position += _ENTRY.size + name_size + extra_size + comment_size
        yield _entry(fields, name, extra, shift)


def find_data(file: IO[bytes], entry: ZipEntry) -> int:
    """Return the position of a member's bytes, which its local header determines.

    Raises:
      ZipError: There is no local header.
    """
    file.seek(entry.header)
    fields = _LOCAL.unpack(_read(file, _LOCAL.size))
    if fields[0] != b"PK\x03\x04":
        raise ZipError(f"no local header at byte {entry.header:,}")
    return entry.header + _LOCAL.size + fields[9] + fields[10]


def _find_directory(file: IO[bytes]) -> tuple[int, int, int]:
    """Return the directory's first and last position, and the number of bytes before the archive.

    A program before the archive makes it unpack itself.
    """
    file_size = file.seek(0, 2)
    tail_start = max(0, file_size - _MAX_COMMENT - _END.size)
    file.seek(tail_start)
    tail = file.read(file_size - tail_start)
    position = tail.rfind(b"PK\x05\x06")
    if position < 0 or len(tail) - position < _END.size:
        raise ZipError("no directory at its end: it is cut off")
    fields = _END.unpack_from(tail, position)
    size, offset, end = fields[5], fields[6], tail_start + position
    end64 = end - _LOCATOR64_SIZE - _END64.size
    if end64 >= 0:
        file.seek(end64)
        fields64 = _END64.unpack(_read(file, _END64.size))
        if fields64[0] == b"PK\x06\x06":
            size, offset, end = fields64[8], fields64[9], end64
    shift = end - size - offset
    if shift < 0:
        raise ZipError(f"a directory of {size:,} bytes at byte {offset:,}, beyond the end")
    return end - size, end, shift


def _entry(fields: tuple, name: bytes, extra: bytes, shift: int) -> ZipEntry:
    made_by, flags, method = fields[1], fields[3], fields[4]
    stored_size, size, attributes, header = fields[8], fields[9], fields[15], fields[16]
    # APPNOTE.TXT, 4.5.3: only the numbers that do not fit are there, in this order.
    numbers = _numbers64(extra)
    size = next(numbers, size) if size == _IN_EXTRA else size
    stored_size = next(numbers, stored_size) if stored_size == _IN_EXTRA else stored_size
    header = next(numbers, header) if header == _IN_EXTRA else header
    return ZipEntry(
        name.decode("utf-8", "surrogateescape") if flags & 0x800 else name.decode("cp437"),
        method,
        bool(flags & 1),
        made_by >> 8 == _UNIX and stat.S_ISLNK(attributes >> 16),
        stored_size,
        size,
        header + shift,
    )


def _numbers64(extra: bytes) -> Iterator[int]:
    """Yield the 64-bit numbers of an entry's extra field."""
    while len(extra) >= 4:
        kind, size = struct.unpack_from("<2H", extra)
        if kind == 1:
            numbers = extra[4 : 4 + size]
            yield from struct.unpack_from(f"<{len(numbers) // 8}Q", numbers)
            return
        extra = extra[4 + size :]


def _read(file: IO[bytes], size: int) -> bytes:
    data = file.read(size)
    if len(data) < size:
        raise ZipError("it ends within its directory")
    return data
