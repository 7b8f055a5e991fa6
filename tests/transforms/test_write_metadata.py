"""Tests that metadata files and indices hold what is in the shards, whatever their number."""

from __future__ import annotations

import numpy as np
import pyarrow.parquet as pq
import pytest
from store import PREFIX

from beam_pipeline.elements import EmbeddedImage, ImageRef, RgbImage, Shard
from beam_pipeline.records import metadata_table
from beam_pipeline.storage import filesystem
from beam_pipeline.transforms import write_metadata
from beam_pipeline.transforms.write_metadata import ShardRows


def make_shards(numbers: list[int], split="train") -> list[ShardRows]:
    return [
        ShardRows(Shard(f"{split}_{index:05}.tfrecord", number, 1), split, f"{split}{index}")
        for index, number in enumerate(numbers)
    ]


@pytest.mark.parametrize(
    ("train", "validation", "files"),
    [
        ([], [], []),
        ([1], [], [[1]]),
        ([], [1], [[1]]),
        ([40_000, 60_000], [1], [[40_000, 60_000], [1]]),
        ([60_000, 60_000], [30_000], [[60_000], [60_000, 30_000]]),
        ([250_000, 1], [], [[250_000], [1]]),
    ],
)
def test_files_have_at_most_so_many_rows(train, validation, files):
    shards = [*make_shards(validation, "validation"), *make_shards(train)[::-1]]
    plan = list(write_metadata.plan_files("metadata-00003-", shards[::2], shards[1::2]))
    assert [name for name, _ in plan] == [
        f"metadata-00003-{index:05}-of-{len(files):05}.parquet" for index in range(len(files))
    ]
    assert [[one.shard.records for one in members] for _, members in plan] == files
    assert [one for _, members in plan for one in members] == sorted(
        shards, key=lambda one: (one.split, one.shard.name)
    )


def write_rows(folder, numbers, suffix=".tfrecord"):
    shards = []
    for index, number in enumerate(numbers):
        path = folder / f"{index}.rows"
        rows = [
            metadata_table.encode_row(
                EmbeddedImage(
                    RgbImage(ImageRef("", f"http://a/{index}/{row}"), np.empty(0), (4, 3)), None
                )
            )
            for row in range(number)
        ]
        path.write_bytes(b"".join(b"%d %s" % (100 + i, row) for i, row in enumerate(rows)))
        shard = Shard(f"lab_images_{index:05}-of-00002{suffix}", number, 1)
        shards.append(ShardRows(shard, "train", str(path)))
    return shards


@pytest.mark.parametrize("prefix", ["", PREFIX], ids=["disk", "store"])
@pytest.mark.parametrize("suffix", [".tfrecord", ".tfrecord.gz"])
def test_a_row_group_for_each_shard_and_an_index_beside_it(tmp_path, prefix, suffix):
    (out := tmp_path / "out").mkdir()
    plan = "metadata-00000-of-00001.parquet", write_rows(tmp_path, [3, 2], suffix)
    first = write_metadata.write_file(plan, f"{prefix}{out}", ["caption"])
    written = {path.name: path.read_bytes() for path in out.iterdir()}
    # An engine may repeat the step.
    assert write_metadata.write_file(plan, f"{prefix}{out}", ["caption"]) == first
    assert {path.name: path.read_bytes() for path in out.iterdir()} == written
    assert first == Shard(plan[0], 5, len(written[plan[0]]))
    parquet = pq.ParquetFile(out / plan[0])
    assert parquet.num_row_groups == 2
    rows = parquet.read_row_group(1).to_pylist()
    assert [row["url"] for row in rows] == ["http://a/1/0", "http://a/1/1"]
    assert {row["shard"] for row in rows} == {f"lab_images_00001-of-00002{suffix}"}
    assert [row["index"] for row in rows] == [0, 1]
    assert [row["offset"] for row in rows] == [0, 100]
    assert written[f"lab_images_00001-of-00002{suffix}.idx"] == b"0 100\n100 101\n"
    assert len(written) == 3


@pytest.mark.parametrize("prefix", ["", PREFIX], ids=["disk", "store"])
def test_an_error_leaves_no_part_of_a_file(tmp_path, prefix):
    (out := tmp_path / "out").mkdir()
    shards = write_rows(tmp_path, [3, 2])
    (tmp_path / "1.rows").unlink()
    with pytest.raises(FileNotFoundError, match=r"1\.rows"):
        write_metadata.write_file(("metadata.parquet", shards), f"{prefix}{out}", [])
    assert [path.name for path in out.iterdir()] == ["lab_images_00000-of-00002.tfrecord.idx"]


def test_a_folder_that_is_not_there_is_removed_too(tmp_path):
    filesystem.remove_folder(str(tmp_path / "rows"))
    (tmp_path / "rows").mkdir()
    (tmp_path / "rows" / "a").touch()
    filesystem.remove_folder(str(tmp_path / "rows"))
    assert list(tmp_path.iterdir()) == []
