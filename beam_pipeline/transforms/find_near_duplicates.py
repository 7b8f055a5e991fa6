"""The steps that find near-duplicates over all parts of a run.

Each task compares all hashes in some of the bands and emits clusters: row numbers, 16 bytes for
each image that has a near-duplicate. No hash is shuffled.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from apache_beam.io.filesystems import FileSystems
from apache_beam.pvalue import AsList

from beam_pipeline import naming
from beam_pipeline.dataset_info import NearDuplicates
from beam_pipeline.elements import Shard
from beam_pipeline.images import near_duplicates
from beam_pipeline.images.near_duplicates import BANDS, MIN_QUALITY, Forest
from beam_pipeline.images.perceptual_hash import HASH_BYTES
from beam_pipeline.records import near_duplicate_table
from beam_pipeline.storage import filesystem

_TASKS = 8
_BATCH = 64 * 1024  # rows


class FindNearDuplicates(beam.PTransform):
    """Write `near_duplicates.parquet`.

    The input is a PCollection of the metadata files of a run, as `Shard`. Returns a PCollection of
    one NearDuplicates.

    Attributes:
      folder: The dataset's folder.
      earlier: The metadata files of earlier parts.
    """

    def __init__(self, folder: str, earlier: Sequence[Shard]):
        super().__init__()
        self._folder, self._earlier = folder, list(earlier)

    def expand(self, files: beam.PCollection) -> beam.PCollection:
        bands = [list(range(BANDS))[task::_TASKS] for task in range(_TASKS)]
        arguments = (self._folder, self._earlier, AsList(files))
        forests = (
            files.pipeline
            | beam.Create(bands)
            | beam.Reshuffle()
            | "CompareBands" >> beam.Map(compare_bands, *arguments)
        )
        return (
            files.pipeline
            | "Start" >> beam.Create([None])
            | "WriteClusters" >> beam.Map(write_clusters, *arguments, AsList(forests))
        )


def compare_bands(
    bands: Sequence[int], folder: str, earlier: Sequence[Shard], files: Sequence[Shard]
) -> Forest:
    """Return the clusters that some bands find, by the indices of rows in all files."""
    rows, hashes = read_hashes(folder, _in_order(earlier, files))
    forest = near_duplicates.find_similar(hashes, bands)
    return forest._replace(rows=rows[forest.rows], roots=rows[forest.roots])


def write_clusters(
    unused_start: Any,
    folder: str,
    earlier: Sequence[Shard],
    files: Sequence[Shard],
    forests: Sequence[Forest],
) -> NearDuplicates:
    """Join clusters, and write `near_duplicates.parquet`; no file is written without clusters."""
    ordered = _in_order(earlier, files)
    images = sum(file.records for file in ordered)
    forest = near_duplicates.join(forests)
    members = np.union1d(forest.rows, forest.roots)
    roots = members.copy()
    roots[np.searchsorted(members, forest.rows)] = forest.roots
    table = near_duplicate_table.make_table(_read_rows(folder, ordered, members), roots)
    size = _write(FileSystems.join(folder, naming.NEAR_DUPLICATES), table) if len(table) else 0
    qualities = _iterate(folder, ordered, ["pdq_quality"])
    compared = sum(len(_find_good(batch)) for _, batch in qualities)
    counts = near_duplicate_table.count(table)
    return NearDuplicates(
        **counts._asdict(), not_compared=images - compared, capped=forest.capped, bytes=size
    )


def read_hashes(folder: str, files: Sequence[Shard]) -> tuple[np.ndarray, np.ndarray]:
    """Return the hashes with a sufficient quality, in the order of the rows of all files.

    Returns:
      The index of each one's row, int64 (N,), and the hashes, uint8 (N, 32).
    """
    indices, hashes = [np.empty(0, np.int64)], [np.empty((0, HASH_BYTES), np.uint8)]
    for start, batch in _iterate(folder, files, ["pdq", "pdq_quality"]):
        good = _find_good(batch)
        data = b"".join(batch["pdq"].take(pa.array(good)).to_pylist())
        indices.append(start + good)
        hashes.append(np.frombuffer(data, np.uint8).reshape(-1, HASH_BYTES))
    return np.concatenate(indices), np.concatenate(hashes)


def _find_good(batch: pa.RecordBatch) -> np.ndarray:
    """Return the indices of the rows whose hash has a sufficient quality, int64 (N,)."""
    # An image without a hash has no quality either.
    is_good = pc.fill_null(pc.greater_equal(batch["pdq_quality"], MIN_QUALITY), False)
    return np.flatnonzero(is_good.to_numpy(zero_copy_only=False))


def _read_rows(folder: str, files: Sequence[Shard], indices: np.ndarray) -> pa.Table:
    """Return the rows with some ascending indices, of the columns that the table repeats."""
    columns = list(near_duplicate_table.REPEATED)
    parts = []
    for start, batch in _iterate(folder, files, columns):
        first, last = np.searchsorted(indices, [start, start + len(batch)])
        parts.append(batch.take(pa.array(indices[first:last] - start)))
    schema = pa.schema([near_duplicate_table.SCHEMA.field(name) for name in columns])
    return pa.Table.from_batches(parts, schema)


def _iterate(
    folder: str, files: Sequence[Shard], columns: list[str]
) -> Iterator[tuple[int, pa.RecordBatch]]:
    """Yield batches of columns of all files, each with the index of its first row."""
    start = 0
    for file in files:
        with filesystem.open_bytes(FileSystems.join(folder, file.name)) as opened:
            batches = pq.ParquetFile(opened).iter_batches(
                _BATCH, columns=columns, use_threads=False
            )
            for batch in batches:
                yield start, batch
                start += len(batch)


def _in_order(earlier: Sequence[Shard], files: Sequence[Shard]) -> list[Shard]:
    """Return the files in an order that all tasks share."""
    return sorted((*earlier, *files), key=lambda file: file.name)


def _write(path: str, table: pa.Table) -> int:
    """Write a table, and return the size of the file in bytes."""
    # An object store would keep the beginning of a file that an error cuts off.
    with tempfile.TemporaryFile() as copy:
        pq.write_table(table, copy, compression="zstd")
        size = copy.tell()
        copy.seek(0)
        with filesystem.create(path, durable=True) as file:
            shutil.copyfileobj(copy, file)
    return size
