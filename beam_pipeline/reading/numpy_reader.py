"""Reads a dataset into NumPy arrays, with only NumPy, Pillow and scikit-image."""

from __future__ import annotations

import bisect
import contextlib
import itertools
import math
import operator
import zlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from beam_pipeline import naming
from beam_pipeline.reading import class_labels
from beam_pipeline.reading.dataset_dir import DatasetDir, Shard
from beam_pipeline.records import example_codec, gzip_members, numpy_decode, tfrecord
from beam_pipeline.storage import any_path
from beam_pipeline.storage.any_path import open_file

_MAX_INDEX_LINE = 42  # bytes: two numbers of 64 bits
_MAX_TEXTS = 1 << 26  # bytes of a record beside its arrays


class Examples(Sequence[dict[str, Any]]):
    """The examples of a split of one or several datasets, in the order of their shards.

    Picklable; processes and threads may share it.
    """

    def __init__(self, folders: Sequence[DatasetDir], split: str):
        self._shards = [
            (head, shard)
            for head, folder in zip(
                [folder.without_lists for folder in folders], folders, strict=True
            )
            for shard in folder.shards(split)
        ]
        self._ends = list(itertools.accumulate(shard.kept for _, shard in self._shards))
        self._labels = class_labels.label_classes(
            name for folder in folders for name in folder.info.classes
        )
        # Offsets of the records by shard, and of its end, found at the first access to an example
        # of the shard.
        self._offsets: dict[int, np.ndarray] = {}

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for folder, shard in self._shards:
            count, excluded = 0, frozenset(shard.excluded)
            for record in read_shard(folder, shard):
                if count not in excluded:
                    yield self._decode(folder, shard, record)
                count += 1
            _check_count(shard, count)

    def __getitem__(self, index: Any) -> Any:
        """Return the example at an index, or a list of those of a slice."""
        if isinstance(index, slice):
            return [self[one] for one in range(*index.indices(len(self)))]
        index = operator.index(index)
        if not -len(self) <= index < len(self):
            raise IndexError(f"example {index} of {len(self)}")
        index %= len(self)
        shard_index = bisect.bisect_right(self._ends, index)
        folder, shard = self._shards[shard_index]
        with _naming(shard):
            if shard_index not in self._offsets:
                self._offsets[shard_index] = _find_records(folder, shard)
            position = shard.position(index - self._ends[shard_index] + shard.kept)
            start, end = map(int, self._offsets[shard_index][position : position + 2])
            record = _read_record(folder, shard, start, end)
        return self._decode(folder, shard, record)

    def _decode(
        self, folder: DatasetDir, shard: Shard, record: bytes | memoryview
    ) -> dict[str, Any]:
        example = decode_example(folder, shard, record)
        label = class_labels.label_of(example["image_class"], self._labels)
        return {**example, "image_label": label}


def read_shard(folder: DatasetDir, shard: Shard, checked: bool = False) -> Iterator[bytes]:
    """Yield the records of a shard.

    Args:
      folder: The dataset.
      shard: The shard.
      checked: Whether to verify the checksums.

    Raises:
      ValueError: The shard, which the message names, is broken.
    """
    with _naming(shard), open_file(shard.path, folder.is_compressed) as file:
        yield from tfrecord.read_records(file, shard.path, checked)


def read_stored(folder: DatasetDir, shard: Shard, start: int = 0) -> Iterator[tuple[int, bytes]]:
    """Yield the size of each record in a shard, and the record; verify all checksums.

    Args:
      folder: The dataset.
      shard: The shard.
      start: Index of the first record to read. The index of the shard locates it.

    Raises:
      ValueError: The shard, which the message names, is broken.
    """
    with _naming(shard), open_file(shard.path) as file:
        if start:
            file.seek(int(_find_records(folder, shard)[start]))
        if folder.is_compressed:
            limit = _max_frame(folder)
            yield from gzip_members.read_records(file, shard.path, True, limit)
        else:
            for record in tfrecord.read_records(file, shard.path):
                yield len(record) + tfrecord.FRAMING, record


def _max_frame(folder: DatasetDir) -> int:
    """Return a bound of the size of a record with its framing, bytes."""
    arrays = (math.prod(feature.shape) for feature in folder.info.features.values())
    return 4 * sum(arrays) + _MAX_TEXTS


def decode_example(folder: DatasetDir, shard: Shard, record: bytes | memoryview) -> dict[str, Any]:
    """Return the arrays of a record, as in `dataset.examples`.

    Raises:
      ValueError: The record is not an example of this dataset; the message names the shard.
    """
    try:
        return numpy_decode.decode_planes(
            example_codec.decode_example(record, folder.info.features),
            folder.info.features,
            folder.info.encoding,
        )
    except ValueError as error:
        raise ValueError(
            f"{shard.path} contains a record that is not an example of this dataset: {error}"
        ) from error


def read_index(shard: Shard) -> bytes | None:
    """Return the content of a shard's index, None if there is none.

    At most one byte more than an index may have is read.
    """
    path = f"{shard.path}{naming.INDEX_SUFFIX}"
    if not any_path.exists(path):
        return None
    with open_file(path) as file:
        return file.read(_MAX_INDEX_LINE * shard.examples + 1)


def _find_records(folder: DatasetDir, shard: Shard) -> np.ndarray:
    """Return the offsets of a shard's records and end, from its index if it has one.

    Raises:
      ValueError: The index or the shard, which the message names, is broken.
    """
    index = read_index(shard)
    if index is not None:
        name = f"{shard.path}{naming.INDEX_SUFFIX}"
        return np.array(tfrecord.parse_index(index, name, shard.examples, shard.bytes), np.int64)
    with open_file(shard.path) as file:
        if folder.is_compressed:
            members = gzip_members.read_members(file, shard.path, _max_frame(folder))
            offsets = list(itertools.accumulate((size for size, _ in members), initial=0))
        else:
            offsets = tfrecord.find_records(file, shard.path)
    _check_count(shard, len(offsets) - 1)
    return np.array(offsets, np.int64)


def _read_record(folder: DatasetDir, shard: Shard, start: int, end: int) -> bytes | memoryview:
    stored = any_path.read_range(shard.path, start, end - start)
    if folder.is_compressed:
        limit = _max_frame(folder)
        return gzip_members.parse_member(stored, end - start, shard.path, limit)
    return tfrecord.parse_frame(stored, end - start, shard.path)


@contextlib.contextmanager
def _naming(shard: Shard) -> Iterator[None]:
    """Convert exceptions of broken gzip files and disks to a ValueError that names the shard."""
    try:
        yield
    except (EOFError, OSError, zlib.error) as error:
        raise ValueError(f"{shard.path} cannot be read: {error}") from error


def _check_count(shard: Shard, count: int) -> None:
    if count != shard.examples:
        raise ValueError(f"{shard.path} holds {count} examples, not {shard.examples}")
