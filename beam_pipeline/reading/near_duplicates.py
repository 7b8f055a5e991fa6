"""Reads `near_duplicates.parquet`, and which examples `exclude` leaves out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from beam_pipeline import naming
from beam_pipeline.dataset_info import DatasetInfo
from beam_pipeline.storage import any_path

if TYPE_CHECKING:
    import pyarrow as pa

# What `exclude` may name: training images with a near-duplicate in validation; all images but one
# of each cluster.
LEAKS, NEAR_DUPLICATES = KINDS = ("leaks", "near_duplicates")


def read_exclusions(
    folder: str, info: DatasetInfo, exclude: Sequence[str]
) -> Mapping[str, tuple[int, ...]]:
    """Return the ascending indices of the examples to leave out, by the name of their shard.

    Args:
      folder: The folder of the dataset.
      info: The content of its `dataset.json`.
      exclude: Some of `KINDS`.

    Raises:
      ValueError: A name is unknown, near-duplicates were not searched, or their file is broken.
    """
    if not isinstance(exclude, (list, tuple, set, frozenset)):
        raise ValueError(f"exclude is {exclude!r}, not a sequence of {' or '.join(KINDS)}")
    if unknown := set(exclude) - set(KINDS):
        raise ValueError(f"exclude {min(unknown)!r} is not known: it is {' or '.join(KINDS)}")
    if not exclude:
        return {}
    if info.near_duplicates is None:
        raise ValueError(
            f"{folder} was made without --near_duplicates, so its near-duplicates are not known"
        )
    # Reading a dataset without exclusions needs no pyarrow.
    from beam_pipeline.records import near_duplicate_table

    table = read_table(folder, info)
    find = {
        LEAKS: near_duplicate_table.find_leaks,
        NEAR_DUPLICATES: near_duplicate_table.find_repeated,
    }
    excluded: dict[str, set[int]] = {}
    for kind in exclude:
        for row in table.filter(find[kind](table)).to_pylist():
            excluded.setdefault(row["shard"], set()).add(row["index"])
    return {shard: tuple(sorted(indices)) for shard, indices in excluded.items()}


def read_table(folder: str, info: DatasetInfo) -> pa.Table:
    """Return the content of `near_duplicates.parquet`, of the schema of `near_duplicate_table`.

    Raises:
      ValueError: The file, which the message names, is missing or broken, or lists examples that
        the dataset does not have.
    """
    import pyarrow.parquet as pq

    from beam_pipeline.records import near_duplicate_table

    if info.near_duplicates is None or not info.near_duplicates.clusters:
        return near_duplicate_table.SCHEMA.empty_table()
    path = any_path.join(folder, naming.NEAR_DUPLICATES)
    try:
        with any_path.open_file(path) as file:
            # Threads of pyarrow may outlive the process, and abort it.
            table = pq.ParquetFile(file).read(use_threads=False).cast(near_duplicate_table.SCHEMA)
        numbers = near_duplicate_table.count(table)._asdict()
    # Of an untrusted file, pyarrow may raise any exception.
    except Exception as error:
        raise ValueError(f"{path} cannot be read: {error}") from error
    if any(number != getattr(info.near_duplicates, name) for name, number in numbers.items()):
        raise ValueError(
            f"{path} holds {numbers}, {naming.DATASET_INFO} lists {info.near_duplicates}"
        )
    shards = {file.name: file for file in info.files}
    for row in table.select(["shard", "index", "split"]).to_pylist():
        shard = shards.get(row["shard"])
        if not (shard and shard.split == row["split"] and 0 <= row["index"] < shard.examples):
            raise ValueError(f"{path} lists an example that is not in the dataset: {row}")
    return table
