"""ArrayRecord files, which Grain reads by the index of a record.

Format: https://github.com/google/array_record
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator

# Grain reads single records: each is a chunk of its own.
_GROUPING = "group_size:1"


def check_installed() -> None:
    """Check that the library is installed.

    Raises:
      ValueError: It is not. The message says what to install.
    """
    try:
        importlib.import_module("array_record.python.array_record_module")
    except ImportError as error:
        raise ValueError(
            "array_record needs its library: pip install 'beam_pipeline[array_record]'"
        ) from error


def write_shard(path: str, records: Iterator[bytes], compressed: bool) -> None:
    """Write records to a file on a disk.

    Args:
      path: The file.
      records: Serialized tf.train.Examples, which are written as they are.
      compressed: Whether to compress each record, with Zstandard.

    Raises:
      RuntimeError: The file cannot be written.
    """
    from array_record.python.array_record_module import ArrayRecordWriter

    writer = ArrayRecordWriter(path, f"{_GROUPING},{'zstd' if compressed else 'uncompressed'}")
    for record in records:
        writer.write(record)
    writer.close()
