"""The rows of `near_duplicates.parquet`: the images that have near-duplicates. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from beam_pipeline.naming import SPLITS

# Columns of `metadata-*.parquet` that are repeated.
REPEATED = ("name", "url", "split", "shard", "index")
CLUSTER_MEANING = "number of the cluster, from 0; its images look the same"
SCHEMA = pa.schema(
    [
        ("name", pa.string()),
        ("cluster", pa.int64()),
        ("url", pa.string()),
        ("split", pa.string()),
        ("shard", pa.string()),
        ("index", pa.int64()),
    ]
)


class ClusterCounts(NamedTuple):
    """Numbers of a table.

    Attributes:
      clusters: Number of clusters.
      images: Number of images in them.
      largest: Number of images in the largest cluster.
      leaks: Number of training images whose cluster has a validation image.
    """

    clusters: int
    images: int
    largest: int
    leaks: int


def make_table(rows: pa.Table, roots: np.ndarray) -> pa.Table:
    """Return the table: clusters by the smallest name in them, from 0.

    In a cluster, validation images come first, then the order is that of the names. It does not
    depend on the order of `rows`.

    Args:
      rows: The columns `REPEATED` of the images that are in a cluster.
      roots: int64 (N,); images of one cluster have equal values.
    """
    names = np.array(rows["name"].to_pylist(), object)
    is_train = np.array(rows["split"].to_pylist(), object) != SPLITS[1]
    by_name = np.argsort(names)
    _, first, labels = np.unique(roots[by_name], return_index=True, return_inverse=True)
    # The place of each cluster among the first positions of all clusters.
    numbers = np.argsort(np.argsort(first))[labels]
    clusters = np.empty(len(names), np.int64)
    clusters[by_name] = numbers
    order = by_name[np.lexsort([is_train[by_name], numbers])]
    table = rows.select(list(REPEATED)).append_column("cluster", pa.array(clusters))
    return table.take(pa.array(order)).select(SCHEMA.names).cast(SCHEMA)


def count(table: pa.Table) -> ClusterCounts:
    """Return the numbers of a table of `make_table`."""
    sizes = np.unique(table["cluster"].to_numpy(), return_counts=True)[1]
    return ClusterCounts(
        len(sizes), len(table), int(sizes.max(initial=0)), int(find_leaks(table).sum())
    )


def find_leaks(table: pa.Table) -> np.ndarray:
    """Return which rows are training images whose cluster has a validation image, bool (N,)."""
    clusters = table["cluster"].to_numpy()
    is_validation = np.array([split == SPLITS[1] for split in table["split"].to_pylist()], bool)
    return ~is_validation & np.isin(clusters, clusters[is_validation])


def find_repeated(table: pa.Table) -> np.ndarray:
    """Return which rows are not the first of their cluster, bool (N,)."""
    clusters = table["cluster"].to_numpy()
    is_repeated = np.ones(len(clusters), bool)
    is_repeated[np.unique(clusters, return_index=True)[1]] = False
    return is_repeated


def list_leaks(table: pa.Table) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Yield the rows of each leak, and of the first validation image of its cluster."""
    rows = table.to_pylist()
    first: dict[int, dict[str, Any]] = {}
    for row in rows:
        first.setdefault(row["cluster"], row)
    for row, is_leak in zip(rows, find_leaks(table), strict=True):
        if is_leak:
            yield row, first[row["cluster"]]
