"""Tests of the steps that find near-duplicates, on metadata files of several parts."""

from __future__ import annotations

import dataclasses

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from apache_beam.testing.util import assert_that, equal_to

from beam_pipeline.dataset_info import NearDuplicates
from beam_pipeline.elements import Shard
from beam_pipeline.images.near_duplicates import MIN_QUALITY
from beam_pipeline.records import metadata_table
from beam_pipeline.transforms.find_near_duplicates import FindNearDuplicates, read_hashes

HASHES = [bytes(row) for row in np.random.default_rng(0).integers(0, 256, (8, 32), np.uint8)]
SIMILAR = bytes([HASHES[0][0] ^ 7, *HASHES[0][1:]])


def write(folder, number: int, images: list[tuple[str, bytes | None, int | None]]) -> Shard:
    """Write a metadata file: names, hashes and qualities. Names with a v are for validation."""
    name = f"metadata-{number:05}-00000-of-00001.parquet"
    rows = [
        {
            **{"name": image, "url": f"http://a/{image}", "pdq": pdq, "pdq_quality": quality},
            **{"split": "validation" if "v" in image else "train", "shard": "s", "index": index},
        }
        for index, (image, pdq, quality) in enumerate(images)
    ]
    pq.write_table(pa.Table.from_pylist(rows, metadata_table.make_schema()), folder / name)
    return Shard(name, len(rows), 1)


def find(folder, earlier: list[Shard], files: list[Shard], expected: NearDuplicates) -> list[dict]:
    with beam.Pipeline(runner=FnApiRunner()) as pipeline:
        found = pipeline | beam.Create(files) | FindNearDuplicates(str(folder), earlier)
        numbers = found | beam.Map(lambda numbers: dataclasses.replace(numbers, bytes=0))
        assert_that(numbers, equal_to([expected]))
    path = folder / "near_duplicates.parquet"
    return pq.read_table(path).to_pylist() if path.exists() else []


def test_clusters_reach_over_parts(tmp_path):
    earlier = [
        write(tmp_path, 0, [("a", HASHES[0], 90), ("b", HASHES[1], 90)]),
        write(tmp_path, 1, [("vc", SIMILAR, MIN_QUALITY), ("d", HASHES[2], 90)]),
    ]
    files = [write(tmp_path, 2, [("e", HASHES[2], 90), ("f", HASHES[3], 90), ("g", SIMILAR, 90)])]
    rows = find(tmp_path, earlier, files, NearDuplicates(2, 5, 3, 2, 0, 0, 0))
    assert [(row["cluster"], row["name"], row["index"]) for row in rows] == [
        *((0, "vc", 0), (0, "a", 0), (0, "g", 2)),
        *((1, "d", 1), (1, "e", 0)),
    ]


def test_images_without_a_good_hash_are_not_compared(tmp_path):
    """Flat images would all be in one cluster."""
    images = [("a", HASHES[0], MIN_QUALITY - 1), ("b", HASHES[0], 0), ("c", None, None)]
    files = [write(tmp_path, 0, [*images, ("d", HASHES[0], 100), ("e", HASHES[5], 100)])]
    assert find(tmp_path, [], files, NearDuplicates(0, 0, 0, 0, 3, 0, 0)) == []


@pytest.mark.parametrize("numbers", [[], [0]])
def test_no_images(tmp_path, numbers):
    files = [write(tmp_path, number, []) for number in numbers]
    assert find(tmp_path, [], files, NearDuplicates(0, 0, 0, 0, 0, 0, 0)) == []


def test_hashes_keep_the_numbers_of_their_rows(tmp_path):
    files = [
        write(tmp_path, 0, [("a", HASHES[0], 10), ("b", HASHES[1], 90)]),
        write(tmp_path, 1, [("c", HASHES[2], 90), ("d", None, None), ("e", HASHES[3], 90)]),
    ]
    rows, hashes = read_hashes(str(tmp_path), files)
    assert rows.tolist() == [1, 2, 4]
    assert [bytes(row) for row in hashes] == [HASHES[1], HASHES[2], HASHES[3]]
