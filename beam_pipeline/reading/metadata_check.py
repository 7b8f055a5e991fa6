"""Compares the rows of `metadata-*.parquet` with the records of the shards.

Records are represented by digests, 8 bytes each, so that those of a large dataset fit into memory.
"""

from __future__ import annotations

import collections
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from beam_pipeline import naming
from beam_pipeline.dataset_info import MetadataFile
from beam_pipeline.elements import as_text
from beam_pipeline.reading.dataset_dir import DatasetDir, Shard
from beam_pipeline.records import metadata_table
from beam_pipeline.storage import any_path

DIGEST_BYTES = 8
_BATCH = 1000  # rows
_SOURCES = ("origin", "fallback")


def digest_record(
    raw: Mapping[str, Any],
    shard: Shard,
    index: int,
    offset: int,
    kept: Sequence[str] = (),
) -> bytes:
    """Return a digest of what a record and its row both say.

    Args:
      raw: The result of `example_codec.decode_example`.
      shard: The shard of the record.
      index: Index of the record in the shard.
      offset: Its position in the shard.
      kept: The names in `--keep_columns`.
    """
    values = [raw[name] for name in metadata_table.FEATURES if name in raw]
    texts = [
        as_text(value.decode(errors="surrogateescape")) if isinstance(value, bytes) else value
        for value in values
    ]
    metadata = metadata_table.kept_values(raw["image_metadata"].decode(), kept) if kept else []
    return _digest([*texts, shard.split, shard.name, index, offset, *metadata])


def find_problems(
    folder: DatasetDir, digests: Mapping[str, bytes], skipped: frozenset[str]
) -> Iterator[str]:
    """Yield the differences between the metadata files and the records, in one line each.

    Args:
      folder: The dataset.
      digests: The concatenated digests of the records of each shard, by its name.
      skipped: Names of shards that are damaged, whose rows are not compared.
    """
    unseen = {name: np.ones(len(data) // DIGEST_BYTES, bool) for name, data in digests.items()}
    is_complete = True
    sources: collections.Counter[str | None] = collections.Counter()
    for file in folder.info.metadata_files:
        if not any_path.exists(any_path.join(folder.path, file.name)):
            is_complete = False  # reported with the other missing files
            continue
        try:
            yield from _check_file(folder, file, digests, unseen, skipped, sources)
        # The client of an object store and the reader of Parquet may raise any exception.
        except Exception as error:
            is_complete = False
            yield f"{file.name} cannot be read: {error}"
    rescued = folder.info.counts.rescued
    if is_complete and sources["fallback"] != rescued:
        yield (
            f"metadata-*.parquet has {sources['fallback']:,} rows of rescued images, "
            f"{naming.DATASET_INFO} lists {rescued:,}"
        )
    for name, rows in unseen.items() if is_complete else ():
        if rows.any() and name not in skipped:
            yield f"{name} has {rows.sum():,} records without a row in metadata-*.parquet"


def _check_file(
    folder: DatasetDir,
    file: MetadataFile,
    digests: Mapping[str, bytes],
    unseen: Mapping[str, np.ndarray],
    skipped: frozenset[str],
    sources: collections.Counter[str | None],
) -> Iterator[str]:
    """Yield the problems of one file.

    Clears the flags in `unseen` of the records that it describes, and counts `sources`.
    """
    with any_path.open_file(any_path.join(folder.path, file.name)) as opened:
        parquet = pq.ParquetFile(opened)
        if parquet.metadata.num_rows != file.rows:
            yield (
                f"{file.name} holds {parquet.metadata.num_rows} rows, {naming.DATASET_INFO} lists "
                f"{file.rows}"
            )
        compared = _columns(folder)
        columns = [*compared, "image_source"]
        if missing := set(columns) - set(parquet.schema_arrow.names):
            raise ValueError(f"it has no column {', '.join(sorted(missing))}")
        # Threads of pyarrow may outlive the process, and abort it.
        batches = parquet.iter_batches(_BATCH, columns=columns, use_threads=False)
        rows = (row for batch in batches for row in batch.to_pylist())
        for number, row in enumerate(rows):
            name, index, source = row["shard"], row["index"], row["image_source"]
            if source not in (*_SOURCES, None):
                yield f"{file.name}: row {number} has the unknown image_source {source!r}"
            sources[source] += 1
            if name in skipped:
                continue
            if name not in digests or index not in range(len(unseen[name])):
                yield f"{file.name}: row {number} is of a record that is not in the dataset"
                continue
            start, found = DIGEST_BYTES * index, _digest([row[column] for column in compared])
            if found != digests[name][start : start + DIGEST_BYTES]:
                yield f"{file.name}: row {number} does not match record {index} of {name}"
            elif not unseen[name][index]:
                yield f"{file.name}: row {number} is a second one for record {index} of {name}"
            unseen[name][index] = False


def _columns(folder: DatasetDir) -> list[str]:
    """Return the columns that are compared, in the order of `digest_record`."""
    repeated = [
        column for name, column in metadata_table.FEATURES.items() if name in folder.info.features
    ]
    kept = metadata_table.kept_names(folder.kept_columns)
    return [*repeated, "split", "shard", "index", "offset", *kept]


def _digest(values: list[Any]) -> bytes:
    text = repr(values).encode(errors="surrogatepass")
    return hashlib.blake2b(text, digest_size=DIGEST_BYTES).digest()
