"""Tests of the comparison of two datasets, made by runs over folders of images."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from origin import image

from beam_pipeline import compare, run


def make(folder: Path, output: str, *options: str) -> str:
    """Make a dataset of the images in a folder; image 0 and those in `ids.txt` are validation."""
    fixed = "--checkpoint none --image_size 16 --encoding lab_uint8 --report=false"
    arguments = ["--images", str(folder / "photos"), "--output", str(folder / output)]
    arguments += ["--validation_ids", str(folder / "ids.txt"), *fixed.split(), *options]
    assert run.main(arguments) == 0
    return str(folder / output)


@pytest.fixture(scope="module")
def datasets(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """Return two datasets, between which one thing happened to each of some images."""
    folder = tmp_path_factory.mktemp("compare")
    photos = folder / "photos"
    photos.mkdir()
    for number in range(8):
        (photos / f"{number}.jpg").write_bytes(image(f"{number}.jpg"))
    (folder / "ids.txt").write_text("0\n1\n")
    first = make(folder, "a")
    (photos / "2.jpg").unlink()
    (photos / "3.jpg").write_bytes(b"not an image")
    (photos / "4.jpg").write_bytes(image("other.jpg"))
    (photos / "new.jpg").write_bytes(image("new.jpg"))
    (folder / "ids.txt").write_text("0\n5\n6\n")
    return first, make(folder, "b", "--resize", "crop")


def inspect(capsys, *arguments: str) -> tuple[int, str]:
    status = compare.main(list(arguments))
    captured = capsys.readouterr()
    return status, captured.out + captured.err


def test_each_change_is_reported(datasets, capsys):
    status, said = inspect(capsys, *datasets, "--json")
    found = json.loads(said)
    photos = Path(datasets[0]).parent / "photos"
    assert status == 1
    assert found["options"].pop("resize") == ["pad", "crop"]
    assert list(found["options"]) == ["sha256 of validation_ids"]
    assert found["counts"] == {"train": [6, 4], "validation": [2, 3], "failures": [0, 1]}
    assert found["same"] == 2
    assert {name: found[name]["images"] for name in ("died", "revived", "changed", "moved")} == {
        "died": 2, "revived": 1, "changed": 1, "moved": 3,
    }  # fmt: skip
    assert sorted(found["died"]["urls"]) == [f"{photos}/2.jpg", f"{photos}/3.jpg"]
    assert found["died"]["reasons"] == {"not_an_image": 1, "not listed": 1}
    assert found["revived"]["urls"] == [f"{photos}/new.jpg"]
    assert found["changed"]["urls"] == [f"{photos}/4.jpg"]
    assert sorted(found["moved"]["urls"]) == [f"{photos}/{name}.jpg" for name in (1, 5, 6)]
    assert found["moved"]["reasons"] == {"train -> validation": 2, "validation -> train": 1}


def test_the_other_way_round_the_dead_revive(datasets, capsys):
    _, said = inspect(capsys, *datasets[::-1], "--json")
    found = json.loads(said)
    assert (found["died"]["images"], found["revived"]["images"]) == (1, 2)
    assert found["died"]["reasons"] == {"not listed": 1}
    assert found["moved"]["reasons"] == {"train -> validation": 1, "validation -> train": 2}


def test_a_person_reads_lines(datasets, capsys):
    status, said = inspect(capsys, *datasets, "--list", "1")
    assert status == 1
    assert f"A: {datasets[0]}: 6 training, 2 validation, 0 failed\n" in said
    assert "  --resize: pad -> crop\n" in said
    assert "             2 died (in A, not in B)\n" in said
    assert said.count("/photos/") == 4


def test_the_same_dataset(datasets, capsys):
    status, said = inspect(capsys, datasets[0], datasets[0])
    assert status == 0
    assert "The options are the same.\n" in said and "8 the same\n" in said


def test_what_is_not_a_dataset_is_refused(datasets, tmp_path, capsys):
    status, said = inspect(capsys, datasets[0], str(tmp_path))
    assert (status, said.count("\n")) == (2, 1)
    assert "no completed run found" in said


@pytest.mark.parametrize(
    "change",
    [
        lambda path: path.write_bytes(b"PAR1"),
        lambda path: path.unlink(),
        lambda path: rename(path, "7"),
        lambda path: rename(path, "g" * 32 + ".jpeg"),
        lambda path: rename(path, None),
        lambda path: pq.write_table(pa.table({"name": ["0" * 32]}), path),
    ],
)
def test_broken_metadata_is_named(datasets, tmp_path, capsys, change):
    for path in Path(datasets[0]).iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    [path] = tmp_path.glob("metadata-*.parquet")
    change(path)
    status, said = inspect(capsys, str(tmp_path), datasets[1])
    assert (status, said.count("\n")) == (2, 1)
    assert path.name in said


def rename(path: Path, name: str | None) -> None:
    table = pq.read_table(path)
    rows = table.to_pylist()
    rows[1]["name"] = name
    pq.write_table(pa.Table.from_pylist(rows, table.schema), path)


def test_broken_failures_are_named(datasets, tmp_path, capsys):
    for path in Path(datasets[1]).iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    [path] = tmp_path.glob("failures-*.jsonl")
    path.write_text("{}\n")
    status, said = inspect(capsys, datasets[0], str(tmp_path))
    assert (status, said.count("\n")) == (2, 1)
    assert path.name in said


@pytest.mark.parametrize("number", ["-1", "x"])
def test_a_wrong_number_is_refused(datasets, capsys, number):
    with pytest.raises(SystemExit, match="2"):
        compare.main([*datasets, f"--list={number}"])
    assert "is not a number of URLs" in capsys.readouterr().err
