"""Tests of Grain, which reads a dataset and its export in a global order, and of its example."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import grain
import numpy as np
import pytest
from absl import flags
from written_dataset import write_dataset

from beam_pipeline import dataset, export
from examples import train_jax

flags.FLAGS.mark_as_parsed()  # Grain reads its flags for worker processes
ENCODINGS = ("lab_float32", "lab_uint8", "rgb_png")


def export_dataset(folder: str, output: Path) -> str:
    """Export a dataset to ArrayRecord, ten training images in three shards."""
    arguments = [folder, "--to", "array_record", "--output", str(output)]
    assert export.main([*arguments, "--examples_per_shard", "4"]) == 0
    return str(output)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return a dataset of ten training images in two shards."""
    return write_dataset(tmp_path_factory.mktemp("dataset"), "lab_uint8")


@pytest.fixture(scope="module")
def exported(folder: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    return export_dataset(folder, tmp_path_factory.mktemp("exported"))


@pytest.fixture(params=["dataset", "export"])
def source(request: pytest.FixtureRequest, folder: str, exported: str) -> str:
    return folder if request.param == "dataset" else exported


def urls(images: grain.MapDataset) -> list[bytes]:
    return [image["image_url"] for image in images]


def assert_equal(examples: list[dict[str, Any]], folder: str) -> None:
    """Check that examples are those of `dataset.load`, in any order."""
    loaded = {
        example["image_name"]: example for example in dataset.load(folder).as_numpy_iterator()
    }
    assert sorted(example["image_name"] for example in examples) == sorted(loaded)
    for example in examples:
        wanted = loaded[example["image_name"]]
        assert set(example) == set(wanted)
        for name, value in example.items():
            if isinstance(value, np.ndarray):
                assert (value.dtype, value.shape) == (wanted[name].dtype, wanted[name].shape)
                np.testing.assert_allclose(value, wanted[name], atol=2e-6, rtol=0, err_msg=name)
            else:
                assert value == wanted[name]


def test_examples_are_a_data_source_of_grain(folder):
    examples = dataset.examples(folder)
    assert isinstance(examples, grain.sources.RandomAccessDataSource)
    for index in (np.int64(7), np.uint8(7), 7):
        assert examples[index]["image_url"] == b"http://a/7"


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_grain_gives_what_load_gives(tmp_path, encoding):
    (tmp_path / "dataset").mkdir()
    folder = write_dataset(tmp_path / "dataset", encoding)
    assert_equal(list(train_jax.load(folder)), folder)
    assert_equal(list(train_jax.load(export_dataset(folder, tmp_path / "exported"))), folder)


def test_worker_processes_give_what_load_gives(source, folder):
    images = train_jax.load(source).to_iter_dataset()
    workers = grain.MultiprocessingOptions(num_workers=2)
    assert_equal(list(images.mp_prefetch(workers)), folder)


def test_grains_data_loader_gives_what_load_gives(folder):
    examples = dataset.examples(folder)
    sampler = grain.samplers.IndexSampler(len(examples), shuffle=True, seed=0, num_epochs=1)
    loader = grain.DataLoader(data_source=examples, sampler=sampler, worker_count=2)
    assert_equal(list(loader), folder)


def test_the_order_is_global_and_depends_on_the_seed(source):
    in_order = [f"http://a/{index}".encode() for index in range(10)]
    orders = [urls(train_jax.load(source, seed)) for seed in (0, 0, 1)]
    assert orders[0] == orders[1] != orders[2]
    for order in orders:
        assert sorted(order) == in_order != order
        # Both shards are among the first four.
        assert len({int(url.rpartition(b"/")[2]) // 5 for url in order[:4]}) == 2
    epochs = urls(train_jax.load(source).repeat(2))
    assert sorted(epochs[:10]) == sorted(epochs[10:]) == in_order
    assert epochs[:10] != epochs[10:]


@pytest.mark.parametrize("workers", ["0", "2"])
def test_the_example_trains(source, capsys, workers):
    # A batch is the complete split, so that the losses of two steps can be compared.
    arguments = [source, "--steps", "20", "--batch_size", "10", "--workers", workers]
    assert train_jax.main(arguments) == 0
    said = capsys.readouterr().out.split()
    assert said[-2:] == ["20", "steps"]
    assert float(said[3]) < float(said[1])


def test_what_the_example_cannot_train_on(tmp_path: Path, capsys):
    assert train_jax.main([str(tmp_path)]) == 2
    assert "no completed run found" in capsys.readouterr().err
    write_dataset(tmp_path, "lab_uint8", embedding=False)
    assert train_jax.main([str(tmp_path)]) == 2
    assert "made without the network" in capsys.readouterr().err
