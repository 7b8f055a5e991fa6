"""The steps that write `metadata-*.parquet` and the indices of shards.

While a shard is written, the rows of its examples are written to a file beside it. When all shards
have their names, those files are merged. Only names are shuffled.
"""

from __future__ import annotations

import itertools
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import apache_beam as beam
import pyarrow as pa
import pyarrow.parquet as pq
from apache_beam.io.filesystems import FileSystems
from apache_beam.pvalue import AsList

from beam_pipeline import naming
from beam_pipeline.elements import Shard
from beam_pipeline.records import metadata_table, tfrecord
from beam_pipeline.storage import filesystem

MAX_ROWS = 100_000  # in a file, unless one shard holds more


class ShardRows(NamedTuple):
    """A shard of examples and the file of its rows.

    Attributes:
      shard: The shard.
      split: The split that it belongs to.
      path: Path of the file with a line `SIZE ROW` for each record: its size in the shard, and the
        result of `metadata_table.encode_row`.
    """

    shard: Shard
    split: str
    path: str


class WriteMetadata(beam.PTransform):
    """Write the metadata files of one part, and the indices of its shards.

    The input is a tuple of PCollections of ShardRows. Returns a PCollection of one `Shard` per
    metadata file.

    Attributes:
      folder: The dataset's folder.
      label: The label of the part in file names.
      kept: The names in `--keep_columns`.
    """

    def __init__(self, folder: str, label: str, kept: Sequence[str]):
        super().__init__()
        self._folder, self._label, self._kept = folder, label, tuple(kept)

    def expand(self, shards: tuple[beam.PCollection, ...]) -> beam.PCollection:
        prefix = f"{naming.METADATA_PREFIX}{self._label}"
        # Prism does not wait for a side input that is a Flatten.
        return (
            shards[0].pipeline
            | beam.Create([prefix])
            | "Plan" >> beam.FlatMap(plan_files, *map(AsList, shards))
            | beam.Reshuffle()
            | "WriteFile" >> beam.Map(write_file, self._folder, self._kept)
        )


def plan_files(prefix: str, *splits: Sequence[ShardRows]) -> Iterator[tuple[str, list[ShardRows]]]:
    """Distribute shards over metadata files of at most `MAX_ROWS` rows, if they allow it.

    Yields:
      The name of each file, and its shards: those for training first, each split by name.
    """
    files: list[list[ShardRows]] = []
    rows = MAX_ROWS
    for one in sorted(itertools.chain(*splits), key=lambda one: (one.split, one.shard.name)):
        rows += one.shard.records
        if rows > MAX_ROWS:
            files.append([])
            rows = one.shard.records
        files[-1].append(one)
    for index, members in enumerate(files):
        yield f"{prefix}{naming.shard_numbers(index, len(files))}.parquet", members


def write_file(plan: tuple[str, Sequence[ShardRows]], folder: str, kept: Sequence[str]) -> Shard:
    """Write a metadata file, one row group for each shard, and the indices of its shards.

    Only the rows of one shard are in memory. A repeated attempt writes the same.

    Args:
      plan: The name of the file, and its shards.
      folder: The dataset's folder.
      kept: The names in `--keep_columns`.
    """
    name, shards = plan
    # An object store would keep the beginning of a file that an error cuts off.
    with tempfile.TemporaryFile() as copy:
        with pq.ParquetWriter(copy, metadata_table.make_schema(kept), compression="zstd") as writer:
            for one in shards:
                sizes, table = read_rows(one, kept)
                writer.write_table(table, row_group_size=max(1, len(sizes)))
                for index in naming.index_names([one.shard.name]):
                    data = tfrecord.format_index(sizes)
                    filesystem.write_bytes(FileSystems.join(folder, index), data, durable=True)
        size = copy.tell()
        copy.seek(0)
        with filesystem.create(FileSystems.join(folder, name), durable=True) as file:
            shutil.copyfileobj(copy, file)
    return Shard(name, sum(one.shard.records for one in shards), size)


def read_rows(shard: ShardRows, kept: Sequence[str]) -> tuple[list[int], pa.Table]:
    """Return the sizes of the records in a shard, and the rows of its examples."""
    with filesystem.open_bytes(shard.path) as file:
        lines = [line.split(b" ", 1) for line in file]
    sizes = [int(size) for size, _ in lines]
    offsets = itertools.accumulate(sizes, initial=0)
    rows = [row for _, row in lines]
    return sizes, metadata_table.make_table(rows, shard.split, shard.shard.name, offsets, kept)
