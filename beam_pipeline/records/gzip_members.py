"""Gzipped shards: each record, with its framing, is one gzip member.

Any reader of gzip sees one stream. An index locates a record, which can be read on its own.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import IO

from beam_pipeline.process import deflate
from beam_pipeline.records import tfrecord

_CHUNK = 1 << 18


def compress_frame(frame: bytes) -> bytes:
    """Return a framed record as it is in a gzipped shard."""
    return deflate.compress(frame)


def parse_member(member: bytes, size: int, name: str, limit: int) -> memoryview:
    """Return the record in a member that an index has located.

    Only the checksums of gzip are verified.

    Args:
      member: The bytes of the file at the offset in the index; fewer than `size` if the file ends.
      size: The size in the index, bytes.
      name: The file's name, for error messages.
      limit: Maximum size of the framed record, bytes.

    Raises:
      ValueError: A member does not begin or end at this offset, or is larger.
    """
    decompressor = deflate.decompressor()
    try:
        frame = decompressor.decompress(member, limit + 1)
    # zlib and ISA-L have errors of their own.
    except Exception:
        frame = b""
    is_whole = decompressor.eof and not decompressor.unused_data and len(member) == size
    if not is_whole or len(frame) > limit:
        raise ValueError(f"{name} does not match its index: no record is where it should be")
    return tfrecord.parse_frame(frame, len(frame), name)


def read_members(file: IO[bytes], name: str, limit: int) -> Iterator[tuple[int, bytes]]:
    """Yield the size of each member in the file, and its decompressed bytes.

    Args:
      file: A gzipped shard, at its beginning.
      name: The file's name, for error messages.
      limit: Maximum size of the decompressed bytes of a member.

    Raises:
      ValueError: A member is broken, cut off, or larger; the message names the file.
    """
    chunk = file.read(_CHUNK)
    index = 0
    while chunk:
        decompressor, taken, parts, length = deflate.decompressor(), 0, [], 0
        while not decompressor.eof:
            if not chunk:
                raise ValueError(f"{name} is cut off in record {index}")
            try:
                part = decompressor.decompress(chunk, limit + 1 - length)
            # zlib and ISA-L have errors of their own.
            except Exception as error:
                raise ValueError(f"{name} is broken at record {index}: {error}") from error
            parts.append(part)
            length += len(part)
            if length > limit:
                raise ValueError(f"{name} is broken at record {index}: it is too large")
            taken += len(chunk)
            chunk = decompressor.unconsumed_tail
            taken -= len(chunk)
            if not chunk and not decompressor.eof:
                chunk = file.read(_CHUNK)
        chunk = decompressor.unused_data
        taken -= len(chunk)
        chunk = chunk or file.read(_CHUNK)
        yield taken, b"".join(parts)
        index += 1


def read_records(
    file: IO[bytes], name: str, checked: bool, limit: int
) -> Iterator[tuple[int, bytes]]:
    """Yield the size of each member in the file, and the record in it.

    Raises:
      ValueError: As in `read_members` and `tfrecord.read_records`, or a member does not hold one
        record.
    """
    for index, (size, data) in enumerate(read_members(file, name, limit)):
        records = list(tfrecord.read_records(io.BytesIO(data), name, checked))
        if len(records) != 1:
            raise ValueError(f"{name} is broken at record {index}: its gzip member is not a record")
        yield size, records[0]
