"""Tests that an incomplete dataset is detected and its problems are named."""

from __future__ import annotations

import json
import pickle
import random
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tensorflow as tf
from PIL import Image
from written_dataset import PIXELS, write_dataset

from beam_pipeline import validate
from beam_pipeline.reading import dataset_dir
from beam_pipeline.records import example_proto

SHARDS = (
    "lab_images_00000-of-00003.tfrecord",
    "lab_images_00001-of-00003.tfrecord",
    "val_lab_images_00002-of-00003.tfrecord",
)


def read(folder: Path, shard: str) -> list[bytes]:
    return [record.numpy() for record in tf.data.TFRecordDataset(str(folder / shard))]


def rewrite(folder: Path, shard: str, records: list[bytes], **changes) -> None:
    """Replace the records of a shard, and update its size in `dataset.json`."""
    with tf.io.TFRecordWriter(str(folder / shard)) as writer:
        for record in records:
            writer.write(record)
    description = json.loads((folder / "dataset.json").read_text())
    for file in description["files"]:
        if file["name"] == shard:
            file |= {"bytes": (folder / shard).stat().st_size, **changes}
    (folder / "dataset.json").write_text(json.dumps(description))


def inspect_folder(folder: Path, capsys, *options: str) -> tuple[int, str]:
    status = validate.main([str(folder), *options])
    captured = capsys.readouterr()
    return status, captured.out + captured.err


@pytest.mark.parametrize("embedding", [True, False])
@pytest.mark.parametrize("compression", ["none", "gzip"])
@pytest.mark.parametrize("encoding", ["lab_float32", "lab_uint8", "rgb_png"])
def test_a_complete_dataset(tmp_path, capsys, encoding, compression, embedding):
    write_dataset(tmp_path, encoding, compression, embedding)
    for beside in ("metrics.json", "report.html"):
        (tmp_path / beside).write_text("{}")
    status, said = inspect_folder(tmp_path, capsys)
    assert status == 0, said
    assert (
        f"{tmp_path} is complete: 10 examples for training and 2 for validation in 3 shards" in said
    )
    assert ("image_embedding" in said) is embedding
    assert "image_l          -1 to 1" in said


@pytest.mark.parametrize("compression", ["none", "gzip"])
def test_one_flipped_bit(tmp_path, capsys, compression):
    whole = tmp_path / "whole"
    whole.mkdir()
    write_dataset(whole, "lab_uint8", compression)
    rng = random.Random(0)
    for index in range(12):
        folder = tmp_path / str(index)
        shutil.copytree(whole, folder)
        shard = folder / rng.choice(
            [name + (".gz" if compression == "gzip" else "") for name in SHARDS]
        )
        data = bytearray(shard.read_bytes())
        # The first ten bytes of gzip hold a time and a system, which no reader checks.
        data[rng.randrange(10 if compression == "gzip" else 0, len(data))] ^= 1 << rng.randrange(8)
        shard.write_bytes(bytes(data))
        status, said = inspect_folder(folder, capsys)
        assert status == 1
        assert shard.name in said
        assert "is not complete: 1 problem\n" in said


def test_a_missing_shard(tmp_path, capsys):
    write_dataset(tmp_path, "lab_uint8")
    (tmp_path / SHARDS[1]).unlink()
    status, said = inspect_folder(tmp_path, capsys)
    assert status == 1
    assert f"{SHARDS[1]} is missing" in said


@pytest.mark.parametrize(
    "name",
    [
        "lab_images_00007-of-00009.tfrecord",
        "notes.txt",
        "failures-00001-of-00002.jsonl",
        "beam-temp-x",
    ],
)
def test_an_unknown_file(tmp_path, capsys, name):
    write_dataset(tmp_path, "lab_uint8")
    (tmp_path / name).write_bytes(b"")
    status, said = inspect_folder(tmp_path, capsys)
    assert status == 1
    assert f"{name} is unknown" in said


METADATA = "metadata-00000-of-00001.parquet"


@pytest.mark.parametrize("name", [f"{SHARDS[0]}.idx", METADATA])
def test_a_missing_index_or_metadata_file(tmp_path, capsys, name):
    write_dataset(tmp_path, "lab_uint8")
    (tmp_path / name).unlink()
    status, said = inspect_folder(tmp_path, capsys)
    assert (status, said.count("\n")) == (1, 2)
    assert f"{name} is missing" in said


@pytest.mark.parametrize(
    "change",
    [
        lambda index: index[:-1],
        lambda index: index + b"0 1\n",
        lambda index: b"1" + index[1:],
        lambda index: b"",
        lambda index: b"\xff" * 10_000,
    ],
)
def test_a_changed_index(tmp_path, capsys, change):
    write_dataset(tmp_path, "lab_uint8")
    index = tmp_path / f"{SHARDS[1]}.idx"
    index.write_bytes(change(index.read_bytes()))
    status, said = inspect_folder(tmp_path, capsys)
    assert (status, said.count("\n")) == (1, 2)
    assert f"{index.name} does not match the records" in said


def change_metadata(folder: Path, change: Callable[[list[dict]], object]) -> str:
    """Replace the rows of metadata, and update their size in `dataset.json`."""
    path = folder / METADATA
    table = pq.read_table(path)
    rows = table.to_pylist()
    change(rows)
    pq.write_table(pa.Table.from_pylist(rows, table.schema), path)
    description = json.loads((folder / "dataset.json").read_text())
    [file] = description["metadata_files"]
    file["bytes"] = path.stat().st_size
    (folder / "dataset.json").write_text(json.dumps(description))
    return path.name


@pytest.mark.parametrize("compression", ["none", "gzip"])
@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("name", "x.jpeg"),
        ("url", "http://a/x"),
        ("id", None),
        ("split", "validation"),
        ("offset", 17),
        ("original_width", 1),
    ],
)
def test_a_changed_row_of_metadata(tmp_path, capsys, compression, column, value):
    write_dataset(tmp_path, "lab_uint8", compression)
    name = change_metadata(tmp_path, lambda rows: rows[3].update({column: value}))
    status, said = inspect_folder(tmp_path, capsys)
    assert (status, said.count("\n")) == (1, 2)
    suffix = ".gz" if compression == "gzip" else ""
    assert f"{name}: row 3 does not match record 3 of {SHARDS[0]}{suffix}" in said


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda rows: rows.pop(), f"{METADATA} holds 11 rows, dataset.json lists 12"),
        (lambda rows: rows.pop(), f"{SHARDS[2]} has 1 records without a row"),
        (lambda rows: rows.append(rows[0]), "row 12 is a second one for record 0"),
        (lambda rows: rows[0].update(shard="x"), "row 0 is of a record that is not in the dataset"),
        (lambda rows: rows[0].update(index=5), "row 0 is of a record that is not in the dataset"),
        (lambda rows: rows[0].update(index=-1), "row 0 is of a record that is not in the dataset"),
        (
            lambda rows: rows[0].update(index=None),
            "row 0 is of a record that is not in the dataset",
        ),
    ],
)
def test_rows_of_metadata_that_are_not_those_of_the_records(tmp_path, capsys, change, said):
    write_dataset(tmp_path, "lab_uint8")
    change_metadata(tmp_path, change)
    status, told = inspect_folder(tmp_path, capsys)
    assert status == 1
    assert said in told


@pytest.mark.parametrize("content", [b"", b"PAR1", b"PAR1" * 100])
def test_a_metadata_file_that_is_not_parquet(tmp_path, capsys, content):
    write_dataset(tmp_path, "lab_uint8")
    (tmp_path / METADATA).write_bytes(content)
    status, said = inspect_folder(tmp_path, capsys)
    assert status == 1
    assert f"{METADATA} cannot be read: " in said


def test_metadata_without_a_column(tmp_path, capsys):
    write_dataset(tmp_path, "lab_uint8")
    pq.write_table(pq.read_table(tmp_path / METADATA).drop(["url", "index"]), tmp_path / METADATA)
    assert (
        f"{METADATA} cannot be read: it has no column index, url"
        in inspect_folder(tmp_path, capsys)[1]
    )


def test_a_shard_of_something_else(tmp_path, capsys):
    write_dataset(tmp_path, "lab_uint8")
    rewrite(tmp_path, SHARDS[0], [example_proto.write_example({"label": 3})] * 5)
    status, said = inspect_folder(tmp_path, capsys)
    assert status == 1
    assert f"{SHARDS[0]}: record 0: it contains label, not image_ab" in said


def test_records_that_are_missing(tmp_path, capsys):
    write_dataset(tmp_path, "lab_uint8")
    rewrite(tmp_path, SHARDS[0], read(tmp_path, SHARDS[0])[:4])
    assert (
        f"{SHARDS[0]} holds 4 examples, dataset.json lists 5" in inspect_folder(tmp_path, capsys)[1]
    )


@pytest.mark.parametrize(("source", "where"), [(SHARDS[1], "twice"), (SHARDS[2], "in both splits")])
def test_an_image_that_occurs_twice(tmp_path, capsys, source, where):
    write_dataset(tmp_path, "lab_uint8")
    records = read(tmp_path, SHARDS[0])
    rewrite(tmp_path, SHARDS[0], [*records[:4], read(tmp_path, source)[0]])
    status, said = inspect_folder(tmp_path, capsys)
    assert status == 1
    assert f"occurs {where}: in {SHARDS[0]} and in {source}" in said


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("image_l", 1.5, "image_l of http://a/0 is not in its range: -1 to 1.5"),
        ("image_ab", np.nan, "image_ab of http://a/0 is not in its range: nan to nan"),
        ("image_embedding", np.inf, "image_embedding of http://a/0 is not in its range"),
    ],
)
def test_values_out_of_range(tmp_path, capsys, name, value, said):
    write_dataset(tmp_path, "lab_float32")
    first, *others = read(tmp_path, SHARDS[0])
    features: dict[str, Any] = {
        key: values[0] if isinstance(values, list) else values
        for key, values in example_proto.read_example(first).items()
    }
    features |= {key: int(features[key][0]) for key in ("original_width", "original_height")}
    features[name] = features[name].copy()
    features[name][3] = value
    rewrite(tmp_path, SHARDS[0], [example_proto.write_example(features), *others])
    status, reported = inspect_folder(tmp_path, capsys)
    assert status == 1
    assert f"{SHARDS[0]}: record 0: {said}" in reported


def test_a_name_that_is_not_the_urls(tmp_path, capsys):
    write_dataset(tmp_path, "lab_uint8")
    records = [record.replace(b"http://a/0", b"http://a/x") for record in read(tmp_path, SHARDS[0])]
    rewrite(tmp_path, SHARDS[0], records)
    assert "is not that of b'http://a/x'" in inspect_folder(tmp_path, capsys)[1]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            lambda description: description["counts"].update(lines=99),
            "has counts that do not add up",
        ),
        (
            lambda description: description["counts"].update(examples=13, lines=15),
            "lists 13 examples, its files hold 12",
        ),
        (
            lambda description: description["files"][0].update(bytes=3),
            "bytes, dataset.json lists 3",
        ),
        (
            lambda description: description["failure_files"][0].update(failures=3),
            "holds 2 failures, dataset.json lists 3",
        ),
        (
            lambda description: description["counts"].update(failures_by_reason={"dns": 2}),
            "dataset.json lists other reasons",
        ),
        (
            lambda description: description["features"].pop("image_id"),
            "it contains image_ab, image_class, image_embedding, image_id",
        ),
    ],
)
def test_a_description_that_does_not_fit(tmp_path, capsys, change, said):
    write_dataset(tmp_path, "lab_uint8")
    description = json.loads((tmp_path / "dataset.json").read_text())
    change(description)
    (tmp_path / "dataset.json").write_text(json.dumps(description))
    status, reported = inspect_folder(tmp_path, capsys)
    assert status == 1
    assert said in reported


def test_shows_and_exports_examples(tmp_path, capsys):
    write_dataset(tmp_path, "rgb_png")
    (tmp_path.parent / "names.pkl").write_bytes(
        pickle.dumps({index: f"class {index}" for index in range(1000)})
    )
    pictures = tmp_path.parent / f"{tmp_path.name}-pictures"
    status, said = inspect_folder(
        tmp_path,
        capsys,
        "--show",
        "3",
        "--export",
        str(pictures),
        "--class_names",
        str(tmp_path.parent / "names.pkl"),
    )
    assert status == 0
    assert said.count("image_url ") == said.count("best classes ") == 3
    assert "original_width   100" in said
    assert len(list(pictures.iterdir())) == 6
    for example in finished_examples(tmp_path)[:3]:
        name = example["image_name"].decode().removesuffix(".jpeg")
        index = int(example["image_url"].decode().rpartition("/")[2])
        with (
            Image.open(pictures / f"{name}.jpeg") as colour,
            Image.open(pictures / f"{name}.grey.jpeg") as grey,
        ):
            assert (colour.format, colour.mode, grey.mode) == ("JPEG", "RGB", "L")
            assert (
                np.abs(
                    np.asarray(colour).astype(float).mean((0, 1)) - PIXELS[index].mean((0, 1))
                ).max()
                < 6
            )


def test_shows_what_can_be_read_of_a_damaged_dataset(tmp_path, capsys):
    write_dataset(tmp_path, "lab_uint8")
    (tmp_path / "notes.txt").write_text("mine")
    status, said = inspect_folder(tmp_path, capsys, "--show", "2")
    assert status == 1
    assert said.count("image_url ") == 2
    assert said.index("image_url ") < said.index("notes.txt is unknown")
    (tmp_path / SHARDS[0]).write_bytes(b"nonsense")
    assert inspect_folder(tmp_path, capsys, "--show", "2")[0] == 1


def test_a_name_that_leads_out_of_the_folder_is_not_followed(tmp_path, capsys):
    folder, pictures = tmp_path / "dataset", tmp_path / "here" / "pictures"
    folder.mkdir()
    write_dataset(folder, "lab_uint8")
    for shard in SHARDS:
        records = [
            re.sub(rb"[0-9a-f]{32}\.jpeg", b"../../" + b"x" * 26 + b".jpeg", record)
            for record in read(folder, shard)
        ]
        rewrite(folder, shard, records)
    assert inspect_folder(folder, capsys, "--export", str(pictures))[0] == 1
    assert len(list(pictures.iterdir())) == 24
    assert {path.name for path in tmp_path.iterdir()} == {"dataset", "here"}


@pytest.mark.parametrize(
    "options", [["--show", "-1"], ["--show", "few"], ["--class_names", "names.txt"]]
)
def test_options_that_make_no_sense(tmp_path, capsys, options):
    with pytest.raises(SystemExit) as caught:
        inspect_folder(tmp_path, capsys, *options)
    assert caught.value.code == 2


def finished_examples(folder: Path) -> list[dict]:
    return list(validate._examples(dataset_dir.open_dataset_dir(folder)))


def test_what_is_no_dataset(tmp_path, capsys):
    assert validate.main([str(tmp_path)]) == 2
    assert "no completed run found in this folder" in capsys.readouterr().err
    (tmp_path / "dataset.json").write_text("[]")
    assert validate.main([str(tmp_path)]) == 2
    assert "is not the description of a dataset: it is not a JSON object" in capsys.readouterr().err
