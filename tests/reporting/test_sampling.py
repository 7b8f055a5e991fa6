"""Tests that shards are read in one process or in several, with the same result."""

from __future__ import annotations

import dataclasses
import io
import os

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from written_dataset import cut_shard, write_dataset

from beam_pipeline.images import decoding
from beam_pipeline.process import worker_processes
from beam_pipeline.reading import dataset_dir, validation
from beam_pipeline.reporting import sampling

EXAMPLE = {"image_url": b"http://a/", "image_id": b""}


@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="one processor, one process")
def test_many_examples_are_read_in_several_processes():
    # With a function of this module, each process would import TensorFlow.
    questions = ["__import__('os').getpid()"] * 5
    assert os.getpid() not in worker_processes.map_in_processes(eval, questions, examples=10_000)
    assert set(worker_processes.map_in_processes(eval, questions, examples=10)) == {os.getpid()}


def test_several_processes_find_the_same(tmp_path, monkeypatch):
    folder = dataset_dir.open_dataset_dir(write_dataset(tmp_path, "lab_uint8"))
    sample = sampling.take_sample(folder, 100)
    whole = validation.check(folder)
    monkeypatch.setattr(worker_processes, "_MANY", 0)
    assert validation.check(folder) == whole
    again = sampling.take_sample(folder, 100)
    assert [one.url for one in again.examples] == [one.url for one in sample.examples]
    np.testing.assert_array_equal(again.ab_counts, sample.ab_counts)

    (tmp_path / "lab_images_00001-of-00003.tfrecord").write_bytes(b"nonsense")
    assert any(
        "lab_images_00001-of-00003.tfrecord is broken at record 0" in problem
        for problem in validation.check(folder)[0]
    )
    with pytest.raises(ValueError, match=r"lab_images_00001-of-00003\.tfrecord is broken"):
        sampling.take_sample(folder, 100)


def test_a_sample_is_taken_all_over_a_large_dataset(tmp_path):
    folder = dataset_dir.open_dataset_dir(write_dataset(tmp_path, "lab_uint8"))
    sample = sampling.take_sample(folder, 4)
    urls = [f"http://a/{index}" for index in (0, 1, 5, 6)]
    assert [example.url for example in sample.examples] == urls
    assert all(pixels.shape == (16, 16, 3) and pixels.dtype == np.uint8 for pixels in sample.pixels)


def test_a_sample_of_a_shard_that_lacks_examples_is_refused(tmp_path):
    folder = dataset_dir.open_dataset_dir(write_dataset(tmp_path, "lab_uint8"))
    cut_shard(tmp_path / "lab_images_00001-of-00003.tfrecord", 2)
    with pytest.raises(
        ValueError, match=r"lab_images_00001-of-00003\.tfrecord holds 2 examples, not 5"
    ):
        sampling.take_sample(folder, 10)
    assert len(sampling.take_sample(folder, 4).examples) == 4


@given(st.integers(1, 4000), st.integers(1, 4000), st.integers(1, 64))
def test_what_is_cropped_is_the_padding(width, height, side):
    image = Image.new("RGB", (width, height), "red")
    square = np.asarray(decoding.make_square(image, side, "pad"))
    cropped = decoding.crop_padding(square, (width, height))
    assert (cropped == [255, 0, 0]).all()
    assert cropped.size == (square == [255, 0, 0]).all(axis=-1).sum() * 3 > 0


@pytest.mark.parametrize(("resize", "rows"), [("pad", 8), ("crop", 16), ("stretch", 16)])
def test_pixels_are_measured_without_padding(tmp_path, resize, rows):
    folder = dataset_dir.open_dataset_dir(write_dataset(tmp_path, "lab_uint8"))
    folder.info.options["resize"] = resize
    sample = sampling.take_sample(folder, 4)
    # The width of the originals is twice their height.
    assert sample.l_counts.sum() == sample.ab_counts.sum() == 4 * 16 * rows
    assert [example.picture_size for example in sample.examples] == [(32, rows)] * 4
    for example in sample.examples:
        assert Image.open(io.BytesIO(example.picture)).size == (32, rows)


@pytest.mark.parametrize("size", [(4000, 1), (1, 4000), (0, 0), (-5, 10**30)])
def test_an_image_of_any_size_gives_a_picture(tmp_path, size):
    lab = decoding.crop_padding(np.zeros((600, 600, 3)), size)
    picture = Image.open(io.BytesIO(sampling._make_example(EXAMPLE, size, lab).picture))
    assert min(picture.size) > 0


def test_a_dataset_for_validation_alone_shows_that(tmp_path):
    folder = dataset_dir.open_dataset_dir(write_dataset(tmp_path, "lab_uint8"))
    assert sampling.take_sample(folder, 100).split == "train"
    files = [
        dataclasses.replace(file, examples=file.examples * (file.split == "validation"))
        for file in folder.info.files
    ]
    folder = dataclasses.replace(folder, info=dataclasses.replace(folder.info, files=files))
    sample = sampling.take_sample(folder, 100)
    assert sample.split == "validation"
    assert [example.url for example in sample.examples] == ["http://a/10", "http://a/11"]
