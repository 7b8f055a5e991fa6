"""Tests of `croissant.json` with the library of the format: validation, and loading of rows."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import mlcroissant
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from origin import image

from beam_pipeline import dataset, run

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
    assert 'The column license "é" has the licence of each image' in card


@pytest.mark.parametrize("name", ["croissant.json", "README.md"])
def test_what_a_person_has_written_is_kept(tmp_path, name):
    output = make(tmp_path)
    fixed = "--checkpoint none --image_size 64 --overwrite --report=false --output"
    argv = ["--images", str(tmp_path / "photographs"), *fixed.split(), str(output)]
    written = dataset.read_info(output).descriptions
    assert set(written) == {"croissant.json", "README.md"}
    first = (output / name).read_text()
    # As the run wrote it, it is replaced.
    assert run.main([*argv, "--count", "3"]) == 0
    second = (output / name).read_text()
    if name == "README.md":
        assert "6 examples" in first and "3 examples" in second
    edited = second.replace("d", "D", 1)
    (output / name).write_text(edited)
    assert run.main([*argv, "--count", "2"]) == 0
    assert (output / name).read_text() == edited
    assert name not in dataset.read_info(output).descriptions


def test_the_context_and_the_description_are_json(tmp_path):
    content = json.loads((make(tmp_path) / "croissant.json").read_text())
    assert content["conformsTo"] == "http://mlcommons.org/croissant/1.0"
    assert not {"license", "citeAs", "creator", "datePublished"} & set(content)
