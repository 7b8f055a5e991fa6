"""Tests that a default dataset suits the trainer of deep-koalarization."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from archives import WNIDS
from origin import image
from written_dataset import write_dataset

from beam_pipeline import dataset
from examples import read_with_tf1

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a dataset of seven images, two of which are validation."""
    folder = tmp_path_factory.mktemp("koalarization")
    (folder / "photos").mkdir()
    for number, (width, height) in enumerate([(320, 240), (120, 200), (224, 224), (90, 80)] * 2):
        name = f"{WNIDS[0]}_{number}.jpg"
        (folder / "photos" / name).write_bytes(image(name, width, height))
    (folder / "photos" / f"{WNIDS[0]}_7.jpg").write_bytes(b"not an image")
    (folder / "ids.txt").write_text(f"{WNIDS[0]}_2\n{WNIDS[0]}_3\n")
    command = [sys.executable, "-m", "beam_pipeline.run", "--image_size", "224"]
    command += ["--images", str(folder / "photos"), "--output", str(folder / "out")]
    command += ["--validation_ids", str(folder / "ids.txt"), "--checkpoint", "untrained"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return folder / "out"


@pytest.mark.parametrize(("split", "number"), [("train", 5), ("validation", 2)])
def test_reads_what_other_readers_read(folder, split, number):
    batches = list(read_with_tf1.batches(str(folder), split, batch_size=2))
    assert {len(batch["image_name"]) for batch in batches[:-1]} <= {2}
    read = {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}
    examples = {
        example["image_name"]: example
        for example in dataset.load(folder, split).as_numpy_iterator()
    }
    assert len(read["image_name"]) == len(examples) == number
    assert set(read["image_name"]) == set(examples)
    for index, name in enumerate(read["image_name"]):
        for feature in ("image_l", "image_ab", "image_embedding"):
            assert read[feature].dtype == np.float32
            np.testing.assert_array_equal(read[feature][index], examples[name][feature])
    assert read["image_l"].min() >= -1 and read["image_l"].max() <= 1
    assert np.abs(read["image_ab"]).max() < 1 and read["image_ab"].std() > 0.01


def test_prints_the_shapes(folder, capsys):
    assert read_with_tf1.main([str(folder), "--batch_size", "2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    for text in ("image_l (2, 224, 224, 1)", "image_ab (2, 224, 224, 2)", "image_name (2,)"):
        assert text in lines[0]


def test_what_the_trainer_cannot_read_is_named(tmp_path, capsys):
    assert read_with_tf1.main([str(tmp_path)]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert "lab_images_*.tfrecord matches no file" in line
    write_dataset(tmp_path, "lab_uint8")
    assert read_with_tf1.main([str(tmp_path)]) == 2
    assert "image_ab" in capsys.readouterr().err
