"""TFRecord files, read without TensorFlow.

https://www.tensorflow.org/tutorials/load_data/tfrecord#tfrecords_format_details
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import IO

import google_crc32c


def read_records(file: IO[bytes], name: str) -> Iterator[bytes]:
    """The records of a file, each held against its checksums.

    Args:
      file: Of uncompressed bytes.
      name: Of the file, for errors.

    Raises:
      ValueError: a record is broken or cut off; names the file and the number of the record, from 0.
    """
    number = 0
    while head := file.read(12):
        length, checksum = struct.unpack("<QI", head) if len(head) == 12 else (0, None)
        if checksum != _masked_crc(head[:8]):
            raise ValueError(f"{name} is broken at record {number}: its length does not match its checksum")
        body = file.read(length + 4)
        if len(body) != length + 4:
            raise ValueError(f"{name} is cut off in record {number}")
        data = body[:-4]
        if struct.unpack("<I", body[-4:])[0] != _masked_crc(data):
            raise ValueError(f"{name} is broken at record {number}: it does not match its checksum")
        yield data
        number += 1


def _masked_crc(data: bytes) -> int:
    crc = google_crc32c.value(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
