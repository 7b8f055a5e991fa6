"""Shards are read again, in one process or in several, with the same outcome."""

from __future__ import annotations

import os

import numpy as np
import pytest
from test_dataset import cut_shard, write_dataset

from beam_pipeline.process import worker_processes
from beam_pipeline.reading import dataset_dir, validation
from beam_pipeline.reporting import sampling


@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="one processor, one process")
def test_many_examples_are_read_in_several_processes():
    # A function of this module would have each process import TensorFlow.
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
    assert [seen.url for seen in again.seen] == [seen.url for seen in sample.seen]
    np.testing.assert_array_equal(again.ab_counts, sample.ab_counts)

    (tmp_path / "lab_images_00001-of-00003.tfrecord").write_bytes(b"nonsense")
    assert any("lab_images_00001-of-00003.tfrecord is broken at record 0" in problem for problem in validation.check(folder)[0])
    with pytest.raises(ValueError, match=r"lab_images_00001-of-00003\.tfrecord is broken"):
        sampling.take_sample(folder, 100)


def test_a_sample_is_taken_all_over_a_large_dataset(tmp_path):
    folder = dataset_dir.open_dataset_dir(write_dataset(tmp_path, "lab_uint8"))
    sample = sampling.take_sample(folder, 4)
    assert [seen.url for seen in sample.seen] == ["http://a/0", "http://a/1", "http://a/5", "http://a/6"]
    assert sample.l_counts.sum() == sample.ab_counts.sum() == 4 * 16 * 16
    assert all(pixels.shape == (16, 16, 3) and pixels.dtype == np.uint8 for pixels in sample.pixels)


def test_a_sample_of_a_shard_that_lacks_examples_is_refused(tmp_path):
    folder = dataset_dir.open_dataset_dir(write_dataset(tmp_path, "lab_uint8"))
    cut_shard(tmp_path / "lab_images_00001-of-00003.tfrecord", 2)
    with pytest.raises(ValueError, match=r"lab_images_00001-of-00003\.tfrecord holds 2 examples, not 5"):
        sampling.take_sample(folder, 10)
    assert len(sampling.take_sample(folder, 4).seen) == 4
