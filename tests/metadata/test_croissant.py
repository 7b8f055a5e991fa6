"""Tests of `croissant.json` with the library of the format: validation, and loading of rows."""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path
from typing import Any

import mlcroissant
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from origin import image
from written_dataset import make_info

from beam_pipeline import dataset, naming, run
from beam_pipeline.dataset_info import DatasetInfo
from beam_pipeline.images.measures import Measures
from beam_pipeline.metadata import croissant, dataset_card, generated_text
from beam_pipeline.reading import dataset_dir, validation
from beam_pipeline.records import metadata_table

# The facts that a run does not know.
MISSING = ("citeAs", "datePublished", "license", "version")
KEPT = ("caption", 'license "é"', "url")


def make(folder: Path, *options: str) -> Path:
    """Make a dataset in several parts from a table; one image of two is like another one."""
    photographs, output = folder / "photographs", folder / "data set"
    photographs.mkdir()
    for number in range(6):
        (photographs / f"{number}.jpg").write_bytes(image(f"{number // 2}.jpg"))
    fixed = "--checkpoint none --image_size 64 --urls_per_commit 4 --report=false"
    argv = ["--images", str(photographs), "--output", str(output), *fixed.split(), *options]
    assert run.main(argv) == 0
    return output


def load(folder: Path) -> mlcroissant.Dataset:
    loaded = mlcroissant.Dataset(jsonld=folder / "croissant.json")
    issues = loaded.metadata.ctx.issues
    assert not issues.errors
    assert len(issues.warnings) == len(MISSING)
    assert all(any(name in warning for name in MISSING) for warning in issues.warnings)
    return loaded


def rows_of(loaded: mlcroissant.Dataset, table: str) -> list[dict[str, Any]]:
    """Return the rows that the library loads, by the names of their columns."""
    [record_set] = [one for one in loaded.metadata.record_sets if one.id == table]
    names = {field.id: field.name for field in record_set.fields}
    return [
        {
            names[key]: value.decode()
            if isinstance(value, bytes) and names[key] != "pdq"
            else value
            for key, value in row.items()
        }
        for row in loaded.records(table)
    ]


def read_tables(folder: Path, pattern: str) -> list[dict[str, Any]]:
    tables = [pq.read_table(path) for path in sorted(folder.glob(pattern))]
    return pa.concat_tables(tables).to_pylist()


def by_name(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(rows, key=lambda row: row["name"])


def test_rows_are_loaded_by_the_library(tmp_path):
    output = make(tmp_path, "--near_duplicates", "--validation_fraction", "0.5")
    loaded = load(output)
    assert loaded.metadata.name == "data set"
    for table, pattern in (
        ("examples", "metadata-*.parquet"),
        ("near_duplicates", "near_duplicates.parquet"),
    ):
        expected = read_tables(output, pattern)
        assert len(expected) == 6
        assert by_name(rows_of(loaded, table)) == by_name(expected)


def test_a_dataset_without_near_duplicates_has_one_table(tmp_path):
    output = make(tmp_path, "--compression", "gzip")
    loaded = load(output)
    assert [record_set.id for record_set in loaded.metadata.record_sets] == ["examples"]
    rows = rows_of(loaded, "examples")
    assert by_name(rows) == by_name(read_tables(output, "metadata-*.parquet"))
    patterns = {one.id: one.includes for one in loaded.metadata.distribution}
    assert patterns["train-shards"] == ["lab_images_*.tfrecord.gz"]
    assert "validation-shards" not in patterns


def test_kept_columns_of_any_name(origin, tmp_path):
    table, output = tmp_path / "table.csv", tmp_path / "dataset"
    with table.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["address", *KEPT])
        for number in range(3):
            writer.writerow([origin.url(f"{number}.jpg"), "a\nb", "CC | BY", f"other {number}"])
    argv = ["--input", str(table), "--output", str(output), "--url_column", "address"]
    argv += ["--keep_columns", ",".join(KEPT), "--allow_private_addresses", "--report=false"]
    assert run.main([*argv, "--checkpoint", "none", "--image_size", "16"]) == 0
    rows = rows_of(load(output), "examples")
    assert by_name(rows) == by_name(read_tables(output, "metadata-*.parquet"))
    assert {row['license "é"'] for row in rows} == {"CC | BY"}
    assert {row["kept_url"] for row in rows} == {f"other {number}" for number in range(3)}
    card = (output / "README.md").read_text()
    assert 'as the source states it, is in the column license "é".' in card
    assert "\nlicense" not in card


def describe(kept: tuple[str, ...] = ()) -> dict[str, Any]:
    return json.loads(croissant.describe(make_info(), kept))


def test_each_column_has_the_type_of_its_values():
    kinds = {
        field["name"]: field["dataType"]
        for field in describe(("caption",))["recordSet"][0]["field"]
    }
    assert set(kinds) == set(metadata_table.make_schema(("caption",)).names)
    assert {name for name, kind in kinds.items() if kind == "sc:Float"} == set(Measures._fields)
    assert {name for name, kind in kinds.items() if kind == "sc:Integer"} == {
        *("index", "offset", "original_width", "original_height", "pdq_quality")
    }


def test_identifiers_are_distinct():
    place = len(metadata_table.make_schema()) + 1
    kept = (f"column_{place}", "é", "a b", "a/b", "a|b")
    [table] = describe(kept)["recordSet"]
    identifiers = [field["@id"] for field in table["field"]]
    assert len(set(identifiers)) == len(identifiers) == place - 1 + len(kept)
    assert not any(character.isspace() for one in identifiers for character in one)


def test_what_a_run_does_not_know_is_left_out():
    content = describe()
    assert content["conformsTo"] == "http://mlcommons.org/croissant/1.0"
    assert not {"license", "citeAs", "creator", "datePublished", "url", "version"} & set(content)


def test_equal_runs_write_equal_descriptions(tmp_path):
    options = ("--validation_fraction", "0.5", "--near_duplicates")
    first = make(tmp_path, *options)
    other = overwrite(
        *(tmp_path, *options, "--urls_per_commit", "4", "--fetch_timeout", "7"),
        output=tmp_path / "again" / first.name,
    )
    for name in naming.DESCRIPTIONS:
        assert (first / name).read_bytes() == (other / name).read_bytes()


def overwrite(folder: Path, *options: str, output: Path | None = None) -> Path:
    output = output or folder / "data set"
    fixed = "--checkpoint none --image_size 64 --overwrite --report=false --output"
    argv = ["--images", str(folder / "photographs"), *fixed.split(), str(output), *options]
    assert run.main(argv) == 0
    return output


def test_what_a_person_has_edited_is_kept(tmp_path, capsys):
    output = make(tmp_path)
    paths = [output / name for name in naming.DESCRIPTIONS]
    first = [path.read_text() for path in paths]
    # As the run wrote it, it is replaced.
    overwrite(tmp_path, "--count", "3", "--compression", "gzip")
    second = [path.read_text() for path in paths]
    assert all("gz" in text for text in second) and not any("gz" in text for text in first)
    assert "is kept" not in capsys.readouterr().out
    edited = [text.replace("d", "D", 1) for text in second]
    for path, text in zip(paths, edited, strict=True):
        path.write_text(text)
    overwrite(tmp_path, "--count", "2")
    assert [path.read_text() for path in paths] == edited
    told = capsys.readouterr().out
    assert all(f"{name} is kept, because a person" in told for name in naming.DESCRIPTIONS)
    assert validation.check(dataset_dir.open_dataset_dir(output))[0] == []


@pytest.mark.parametrize("create", [Path.touch, Path.mkdir, os.mkfifo])
def test_nothing_else_of_that_name_is_replaced(tmp_path, create):
    output, photographs = tmp_path / "data set", tmp_path / "photographs"
    for folder in (output, photographs):
        folder.mkdir()
    (photographs / "0.jpg").write_bytes(image("0.jpg"))
    paths = [output / name for name in naming.DESCRIPTIONS]
    for path in paths:
        create(path)
    before = [(path.lstat().st_ino, path.lstat().st_size) for path in paths]
    overwrite(tmp_path)
    assert [(path.lstat().st_ino, path.lstat().st_size) for path in paths] == before


def test_what_an_interrupted_run_has_written_is_replaced(tmp_path, monkeypatch):
    (tmp_path / "photographs").mkdir()
    (tmp_path / "photographs" / "0.jpg").write_bytes(image("0.jpg"))

    def fail(info):
        raise OSError("no space left on the device")

    output = tmp_path / "data set"
    argv = ["--images", str(tmp_path / "photographs"), "--output", str(output)]
    with monkeypatch.context() as patch:
        patch.setattr(DatasetInfo, "to_json", fail)
        assert run.main([*argv, "--checkpoint", "none", "--report=false", "--image_size", "8"]) == 1
    assert set(naming.DESCRIPTIONS) <= {path.name for path in output.iterdir()}
    overwrite(tmp_path, "--encoding", "rgb_png")
    info = dataset.read_info(output)
    for name, module in ((naming.CROISSANT, croissant), (naming.CARD, dataset_card)):
        expected = generated_text.sign(module.describe(info, ()))
        assert (output / name).read_bytes() == expected
