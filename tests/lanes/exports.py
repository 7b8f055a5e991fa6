"""Tests of exports on Prism, and from and to object stores, each an emulator."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from programs import BEAM, CACHE
from stores import bucket  # noqa: F401  # a fixture
from written_dataset import write_dataset

from beam_pipeline import dataset
from beam_pipeline.storage import any_path
from beam_pipeline.storage.filesystem import read_bytes, write_bytes

FORMATS = ("webdataset", "array_record")


def export(
    folder: str | Path, to: str, output: str | Path, *others: str | Path
) -> dict[str, bytes]:
    """Export a dataset as a user would; return the content of the files."""
    command = [sys.executable, "-m", "beam_pipeline.export", str(folder), "--to", to]
    command += ["--output", str(output), "--examples_per_shard", "4", *map(str, others)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "10 examples for training and 2 for validation in 4 shards" in done.stdout
    output = str(output)
    return {name: read_bytes(any_path.join(output, name)) for name in any_path.list_files(output)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(write_dataset(tmp_path_factory.mktemp("dataset"), "lab_uint8"))


@pytest.mark.parametrize("to", FORMATS)
def test_prism_writes_the_same_files(folder, tmp_path, to):
    prism = ("--runner", "PrismRunner", "--prism_location", CACHE / f"prism-{BEAM}" / "prism")
    made = export(folder, to, tmp_path / "prism", *prism)
    assert made == export(folder, to, tmp_path / "direct")


@pytest.mark.parametrize("to", FORMATS)
def test_stores_hold_the_same_files(folder, tmp_path, to, bucket):  # noqa: F811
    for path in folder.iterdir():
        write_bytes(f"{bucket}/{to}/dataset/{path.name}", path.read_bytes())
    made = export(f"{bucket}/{to}/dataset", to, f"{bucket}/{to}/exported")
    assert made == export(folder, to, tmp_path / "local")
    decode = dataset.record_decoder(f"{bucket}/{to}/exported")
    with pytest.raises(ValueError):
        decode(b"not a record")
