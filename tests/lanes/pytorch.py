"""Tests of PyTorch's DataLoader over a dataset and its export, and of its example.

PyTorch runs in processes of its own, which import neither TensorFlow nor Beam.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from written_dataset import write_dataset

from beam_pipeline import dataset, export

ROOT = Path(__file__).parent.parent.parent
ENCODINGS = ("lab_float32", "lab_uint8", "rgb_png")
ARRAYS = ("image_l", "image_ab", "image_embedding", "image_label")
# The Python that has PyTorch.
PYTHON = os.environ.get("TORCH_PYTHON", sys.executable)

LOAD = """
import sys
import numpy as np
import torch
from torch.utils.data import DataLoader
from beam_pipeline import dataset

if __name__ == "__main__":
    folder, context, saved = sys.argv[1:]
    torch.manual_seed(0)
    loader = DataLoader(
        dataset.examples(folder), batch_size=4, shuffle=True, num_workers=2,
        multiprocessing_context=context,
    )
    batches = list(loader) + list(loader)
    assert all(isinstance(batch["image_l"], torch.Tensor) for batch in batches)
    arrays = {
        name: torch.cat([batch[name] for batch in batches]).numpy()
        for name in ("image_l", "image_ab", "image_embedding", "image_label")
    }
    names = [name.decode() for batch in batches for name in batch["image_name"]]
    assert not {"tensorflow", "apache_beam"} & set(sys.modules)
    np.savez(saved, image_name=names, **arrays)
"""

LOAD_WEBDATASET = """
import sys
import numpy as np
import torch
import webdataset

if __name__ == "__main__":
    *shards, saved = sys.argv[1:]
    images = webdataset.WebDataset(shards, shardshuffle=10).shuffle(10).decode()
    pairs = images.to_tuple("__key__", "l.npy", "ab.npy", "embedding.npy", "cls").batched(4)
    batches = list(torch.utils.data.DataLoader(pairs, batch_size=None, num_workers=2))
    names = [f"{key}.jpeg" for keys, *_ in batches for key in keys]
    l, ab, embedding, label = (
        np.concatenate([np.asarray(batch[index]) for batch in batches]) for index in range(1, 5)
    )
    np.savez(
        saved, image_name=names, image_l=l, image_ab=ab, image_embedding=embedding,
        image_label=label,
    )
"""


@pytest.fixture(params=ENCODINGS)
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Return a dataset of ten training images in two shards."""
    (tmp_path / "dataset").mkdir()
    return write_dataset(tmp_path / "dataset", request.param)


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [PYTHON, *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
    )


def run_script(tmp_path: Path, text: str, *arguments: str | Path) -> dict[str, np.ndarray]:
    """Run a program, and return the arrays that it saves."""
    script, saved = tmp_path / "load.py", tmp_path / "saved.npz"
    script.write_text(text)
    done = run(script, *arguments, saved)
    assert done.returncode == 0, done.stderr
    return dict(np.load(saved))


def assert_equal(read: dict[str, np.ndarray], folder: str) -> None:
    """Check that arrays are those of `dataset.load`."""
    loaded = {
        example["image_name"].decode(): example
        for example in dataset.load(folder).as_numpy_iterator()
    }
    assert set(read["image_name"]) == set(loaded)
    for index, image_name in enumerate(read["image_name"]):
        for name in ARRAYS:
            wanted = loaded[image_name][name]
            assert read[name].dtype == wanted.dtype
            np.testing.assert_allclose(read[name][index], wanted, atol=2e-6, rtol=0, err_msg=name)


@pytest.mark.parametrize("context", ["fork", "spawn"])
def test_a_data_loader_gives_what_load_gives(folder, tmp_path, context):
    read = run_script(tmp_path, LOAD, folder, context)
    first, second = read["image_name"][:10], read["image_name"][10:]
    assert set(first) == set(second) and len(set(first)) == 10
    in_order = [example["image_name"].decode() for example in dataset.examples(folder)]
    assert len({tuple(first), tuple(second), tuple(in_order)}) == 3
    assert_equal(read, folder)


def test_webdataset_gives_what_load_gives(tmp_path):
    (tmp_path / "dataset").mkdir()
    folder = write_dataset(tmp_path / "dataset", "lab_float32")
    output = tmp_path / "exported"
    arguments = [folder, "--to", "webdataset", "--output", str(output)]
    assert export.main([*arguments, "--examples_per_shard", "4"]) == 0
    read = run_script(tmp_path, LOAD_WEBDATASET, *sorted(output.glob("train-*.tar")))
    assert len(read["image_name"]) == 10
    assert_equal(read, folder)


@pytest.mark.parametrize("workers", ["0", "2"])
def test_the_example_trains(tmp_path, workers):
    folder = write_dataset(tmp_path, "lab_uint8")
    # A batch is the complete split, so that the losses of two steps can be compared.
    arguments = ("--steps", "20", "--batch_size", "10", "--workers", workers)
    done = run("-m", "examples.train_pytorch", folder, *arguments)
    assert done.returncode == 0, done.stderr
    said = done.stdout.split()
    assert said[-2:] == ["20", "steps"]
    assert float(said[3]) < float(said[1])


def test_what_the_example_cannot_train_on(tmp_path):
    done = run("-m", "examples.train_pytorch", tmp_path)
    assert (done.returncode, "no completed run found" in done.stderr) == (2, True)
    write_dataset(tmp_path, "lab_uint8", embedding=False)
    done = run("-m", "examples.train_pytorch", tmp_path)
    assert (done.returncode, "made without the network" in done.stderr) == (2, True)
