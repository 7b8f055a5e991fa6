"""The example trains on what a run has made."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from test_dataset import write_dataset
from test_statistics import analyze, read_records

from beam_pipeline import finished
from examples import train_colorizer


@pytest.mark.parametrize("statistics", [False, True])
def test_trains_and_paints(tmp_path, capsys, statistics):
    folder = finished.find(write_dataset(tmp_path, "lab_uint8"))
    if statistics:
        analyze(folder, read_records(folder))
    pictures = tmp_path / "pictures"
    assert train_colorizer.main([str(tmp_path), "--output", str(pictures), "--steps", "2", "--batch_size", "2"]) == 0
    assert "grey | predicted | true" in capsys.readouterr().out
    assert sorted(path.name for path in pictures.iterdir()) == ["0.png", "1.png", "2.png", "3.png", "colorizer.keras"]
    with Image.open(pictures / "0.png") as picture:
        grey, predicted, true = np.split(np.asarray(picture).astype(int), 3, axis=1)
    assert np.ptp(grey, axis=-1).max() <= 3
    assert predicted.shape == true.shape == (224, 224, 3)


def test_what_it_cannot_train_on(tmp_path, capsys):
    assert train_colorizer.main([str(tmp_path)]) == 2
    assert "no run has ended" in capsys.readouterr().err
    write_dataset(tmp_path, "lab_uint8", embedding=False)
    assert train_colorizer.main([str(tmp_path)]) == 2
    assert "made without the network" in capsys.readouterr().err
