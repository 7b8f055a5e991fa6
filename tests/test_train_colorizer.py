"""Tests that the example trains on the output of a run."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from written_dataset import analyze, read_records, write_dataset

from beam_pipeline import dataset
from beam_pipeline.images import lab_color
from beam_pipeline.reading import dataset_dir
from examples import train_colorizer


@pytest.mark.parametrize("statistics", [False, True])
def test_trains_and_paints(tmp_path, capsys, statistics):
    folder = dataset_dir.open_dataset_dir(write_dataset(tmp_path, "lab_uint8"))
    if statistics:
        analyze(folder, read_records(folder))
    pictures = tmp_path / "pictures"
    assert (
        train_colorizer.main(
            [str(tmp_path), "--output", str(pictures), "--steps", "2", "--batch_size", "2"]
        )
        == 0
    )
    assert "grey | predicted | true" in capsys.readouterr().out
    assert sorted(path.name for path in pictures.iterdir()) == [
        "0.png",
        "1.png",
        "2.png",
        "3.png",
        "colorizer.keras",
    ]
    with Image.open(pictures / "0.png") as picture:
        grey, predicted, true = np.split(np.asarray(picture).astype(int), 3, axis=1)
    assert np.ptp(grey, axis=-1).max() <= 3
    assert predicted.shape == (224, 224, 3)
    first = next(iter(dataset.load(folder.path, transformed=statistics).as_numpy_iterator()))
    pixels = lab_color.lab_to_rgb(lab_color.unscale_lab(first["image_l"], first["image_ab"]))
    enlarged = np.asarray(
        Image.fromarray(pixels).resize((224, 224), Image.Resampling.BILINEAR)
    ).astype(int)
    assert np.abs(true - enlarged).mean() < 8

    [((l, embedding), ab, weight)] = (
        train_colorizer.load_pairs(folder.path, statistics).take(1).as_numpy_iterator()
    )
    np.testing.assert_array_equal(embedding, first["image_embedding"])
    assert (l.shape, ab.shape, weight.shape) == ((224, 224, 1), (224, 224, 2), (224, 224))
    np.testing.assert_allclose(
        weight.mean(), first["image_weight"].mean() if statistics else 1, rtol=0.05
    )


def test_what_it_cannot_train_on(tmp_path, capsys):
    assert train_colorizer.main([str(tmp_path)]) == 2
    assert "no completed run found" in capsys.readouterr().err
    write_dataset(tmp_path, "lab_uint8", embedding=False)
    assert train_colorizer.main([str(tmp_path)]) == 2
    assert "made without the network" in capsys.readouterr().err
