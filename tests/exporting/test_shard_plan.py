"""Tests of the plan of an export: each example once, in order, in full shards."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st
from written_dataset import make_info

from beam_pipeline.dataset_info import ExampleFile
from beam_pipeline.exporting import shard_plan
from beam_pipeline.reading.dataset_dir import DatasetDir


@given(
    shards=st.lists(st.tuples(st.integers(0, 20), st.sets(st.integers(0, 19))), max_size=6),
    size=st.integers(1, 25),
)
def test_each_example_is_in_one_shard(shards, size):
    files, excluded, kept = [], {}, []
    for number, (examples, left_out) in enumerate(shards):
        name = f"lab_images_{number}.tfrecord"
        files.append(ExampleFile(name, "train", examples, 100))
        excluded[name] = tuple(sorted(index for index in left_out if index < examples))
        kept += [(name, index) for index in range(examples) if index not in excluded[name]]
    folder = DatasetDir("folder", make_info(files=files), excluded)
    planned = list(shard_plan.plan(folder, size, ".tar"))
    found = [
        (piece.shard.name, index)
        for shard in planned
        for piece in shard.pieces
        for index in range(piece.start, piece.stop)
        if index not in piece.shard.excluded
    ]
    assert found == kept
    assert [shard.examples for shard in planned[:-1]] == [size] * (len(planned) - 1)
    assert sum(shard.examples for shard in planned) == len(kept)
    assert [shard.name for shard in planned] == [
        f"train-{number:06}.tar" for number in range(len(planned))
    ]


def test_splits_do_not_share_a_shard():
    files = [
        ExampleFile("val", "validation", 3, 1),
        ExampleFile("a", "train", 5, 1),
        ExampleFile("b", "train", 2, 1),
    ]
    planned = list(shard_plan.plan(DatasetDir("", make_info(files=files)), 4, ".array_record"))
    assert [(shard.name, shard.split, shard.examples) for shard in planned] == [
        ("train-000000.array_record", "train", 4),
        ("train-000001.array_record", "train", 3),
        ("validation-000000.array_record", "validation", 3),
    ]


def test_a_broken_number_of_examples_takes_no_memory():
    files = [ExampleFile("a", "train", 2**62, 1)]
    plan = shard_plan.plan(DatasetDir("", make_info(files=files)), 500, ".tar")
    first = next(plan)
    assert dataclasses.astuple(first.pieces[0])[1:] == (0, 500)


@pytest.mark.parametrize("index", range(4))
def test_a_position_counts_what_is_left_out(index):
    file = ExampleFile("a", "train", 8, 1)
    folder = DatasetDir("", make_info(files=[file]), {"a": (0, 1, 4, 7)})
    [shard] = folder.shards("train")
    assert shard.position(index) == [2, 3, 5, 6][index]
