"""Tests of the table of near-duplicates."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from beam_pipeline.records import near_duplicate_table
from beam_pipeline.records.near_duplicate_table import ClusterCounts

# Name, split, and an equal number for the images of one cluster.
IMAGES = [
    ("e", "train", 7),
    ("b", "train", 3),
    ("d", "validation", 7),
    ("a", "train", 7),
    ("c", "train", 3),
    ("f", "validation", 9),
    ("g", "validation", 9),
]


def make_table(images) -> pa.Table:
    rows = [
        {"name": name, "url": f"u/{name}", "split": split, "shard": f"{split}.x", "index": index}
        for index, (name, split, _) in enumerate(images)
    ]
    schema = near_duplicate_table.SCHEMA
    columns = pa.schema([schema.field(name) for name in near_duplicate_table.REPEATED])
    roots = np.array([root for _, _, root in images], np.int64)
    return near_duplicate_table.make_table(pa.Table.from_pylist(rows, columns), roots)


def test_validation_images_come_first_in_a_cluster():
    table = make_table(IMAGES)
    assert table.schema == near_duplicate_table.SCHEMA
    assert [(row["cluster"], row["name"]) for row in table.to_pylist()] == [
        *((0, "d"), (0, "a"), (0, "e")),
        *((1, "b"), (1, "c")),
        *((2, "f"), (2, "g")),
    ]
    assert table.to_pylist()[0] == {
        **{"name": "d", "cluster": 0, "url": "u/d"},
        **{"split": "validation", "shard": "validation.x", "index": 2},
    }


@pytest.mark.parametrize("seed", range(3))
def test_the_order_of_the_rows_does_not_matter(seed):
    order = np.random.default_rng(seed).permutation(len(IMAGES))
    shuffled = make_table([IMAGES[place] for place in order]).select(["name", "cluster"])
    assert shuffled == make_table(IMAGES).select(["name", "cluster"])


def test_leaks_and_repeated_images():
    table = make_table(IMAGES)
    names = np.array(table["name"].to_pylist())
    assert list(names[near_duplicate_table.find_leaks(table)]) == ["a", "e"]
    assert list(names[near_duplicate_table.find_repeated(table)]) == ["a", "e", "c", "g"]
    assert near_duplicate_table.count(table) == ClusterCounts(3, 7, 3, 2)
    pairs = [
        (leak["name"], other["name"]) for leak, other in near_duplicate_table.list_leaks(table)
    ]
    assert pairs == [("a", "d"), ("e", "d")]


def test_no_clusters():
    table = make_table([])
    assert near_duplicate_table.count(table) == ClusterCounts(0, 0, 0, 0)
    assert list(near_duplicate_table.list_leaks(table)) == []
    assert not len(near_duplicate_table.find_repeated(table))
