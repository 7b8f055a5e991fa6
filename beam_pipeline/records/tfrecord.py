"""Reading and writing of TFRecord files without TensorFlow.

https://www.tensorflow.org/tutorials/load_data/tfrecord#tfrecords_format_details
"""

from __future__ import annotations

import itertools
import struct
from collections.abc import Iterable, Iterator
from typing import IO

FRAMING = 16  # bytes of a record's length and checksums
_MAX_BYTES = 2**31


def read_records(file: IO[bytes], name: str, checked: bool = True) -> Iterator[bytes]:
    """Yield the records of a file.

    Args:
      file: A file of uncompressed bytes.
      name: The file's name, for error messages.
      checked: Whether to verify the checksums, which imports google-crc32c.

    Raises:
      ValueError: A record is broken or cut off; the message names the file and the index of the
        record, from 0.
    """
    index = 0
    while head := file.read(12):
        length = _read_length(head, name, index, checked)
        data, checksum = file.read(length), file.read(4)
        if len(data) + len(checksum) != length + 4:
            raise ValueError(f"{name} is cut off in record {index}")
        if checked and struct.unpack("<I", checksum)[0] != _masked_crc(data):
            raise ValueError(f"{name} is broken at record {index}: it does not match its checksum")
        yield data
        index += 1


def frame(data: bytes) -> bytes:
    """Return a record in the file format: its length and its bytes, each with a checksum."""
    length = struct.pack("<Q", len(data))
    return b"".join(
        (length, struct.pack("<I", _masked_crc(length)), data, struct.pack("<I", _masked_crc(data)))
    )


def parse_frame(frame: bytes, size: int, name: str) -> memoryview:
    """Return the record in a frame that an index has located, as a view of the frame.

    Only the checksum of the length is verified: that of the bytes needs google-crc32c.

    Args:
      frame: The bytes of the file at the offset in the index; fewer than `size` if the file ends.
      size: The size in the index, bytes.
      name: The file's name, for error messages.

    Raises:
      ValueError: A frame does not begin or end at this offset.
    """
    length = struct.pack("<Q", max(0, size - FRAMING))
    head = length + struct.pack("<I", _mask(_slow_crc(length)))
    if len(frame) != size or size < FRAMING or frame[:12] != head:
        raise ValueError(f"{name} does not match its index: no record is where it should be")
    return memoryview(frame)[12:-4]


def format_index(sizes: Iterable[int]) -> bytes:
    """Return the index of a file: a line `OFFSET SIZE` for each frame.

    This is the format of NVIDIA DALI's tfrecord2idx.

    Args:
      sizes: Sizes of the frames, `FRAMING` included, bytes.
    """
    sizes = list(sizes)
    offsets = itertools.accumulate(sizes, initial=0)
    return b"".join(b"%d %d\n" % entry for entry in zip(offsets, sizes, strict=False))


def parse_index(index: bytes, name: str, records: int, size: int) -> list[int]:
    """Return the offset of each frame of a file, and of the file's end, from its index.

    Args:
      index: The content of the index, which is untrusted.
      name: The index's name, for error messages.
      records: Number of records in the file.
      size: Size of the file, bytes.

    Raises:
      ValueError: The index is not that of a file with that number of records and bytes.
    """
    offsets = [0]
    try:
        for line in index.splitlines():
            offset, length = map(int, line.split())
            if offset != offsets[-1] or not FRAMING <= length < _MAX_BYTES:
                raise ValueError("its lines do not follow one another")
            offsets.append(offset + length)
    except ValueError as error:
        raise ValueError(f"{name} is not an index of records: {error}") from error
    if (len(offsets) - 1, offsets[-1]) != (records, size):
        raise ValueError(
            f"{name} is the index of {len(offsets) - 1} records in {offsets[-1]} bytes, not of "
            f"{records} in {size}"
        )
    return offsets


def find_records(file: IO[bytes], name: str) -> list[int]:
    """Return the offset of each record of a file, and of its end, without reading the records.

    Raises:
      ValueError: A record is broken or cut off, as in `read_records` without checksums.
    """
    offsets = [0]
    while head := file.read(12):
        index = len(offsets) - 1
        offsets.append(offsets[-1] + _read_length(head, name, index, checked=False) + FRAMING)
        file.seek(offsets[-1] - 1)
        if not file.read(1):
            raise ValueError(f"{name} is cut off in record {index}")
    return offsets


def _read_length(head: bytes, name: str, index: int, checked: bool) -> int:
    length, checksum = struct.unpack("<QI", head) if len(head) == 12 else (_MAX_BYTES, None)
    # Without checksums a broken length must not allocate all memory; no record reaches the size
    # limit of protobuf messages.
    if length >= _MAX_BYTES or (checked and checksum != _masked_crc(head[:8])):
        raise ValueError(
            f"{name} is broken at record {index}: its length does not match its checksum"
        )
    return int(length)


def _masked_crc(data: bytes) -> int:
    import google_crc32c

    return _mask(google_crc32c.value(data))


def _mask(crc: int) -> int:
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def _slow_crc(data: bytes) -> int:
    """Return the CRC-32C of a few bytes without google-crc32c."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF
