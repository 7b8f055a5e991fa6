"""Reading and writing of TFRecord files without TensorFlow.

https://www.tensorflow.org/tutorials/load_data/tfrecord#tfrecords_format_details
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import IO

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


def find_records(file: IO[bytes], name: str) -> list[int]:
    """Return the offset of each record of a file without reading the records.

    Raises:
      ValueError: A record is broken or cut off, as in `read_records` without checksums.
    """
    offsets, offset = [], 0
    while head := file.read(12):
        offsets.append(offset)
        offset += 12 + _read_length(head, name, len(offsets) - 1, checked=False) + 4
        file.seek(offset - 1)
        if not file.read(1):
            raise ValueError(f"{name} is cut off in record {len(offsets) - 1}")
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

    crc = google_crc32c.value(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
