"""Tests of the export: what the readers of each format get, and how it fails."""

from __future__ import annotations

import hashlib
import json
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import webdataset
from array_record.python.array_record_module import ArrayRecordReader
from origin import image
from output_folder import names
from store import PREFIX
from written_dataset import cut_shard, write_dataset

from beam_pipeline import dataset, export, run
from beam_pipeline.config import UsageError
from beam_pipeline.exporting import graph
from beam_pipeline.exporting.export_options import ExportError, ExportOptions
from beam_pipeline.launch import export_launcher
from beam_pipeline.reading import dataset_dir, numpy_reader
from beam_pipeline.records import example_codec

ROOT = Path(__file__).parent.parent
ENCODINGS = ("lab_float32", "lab_uint8", "rgb_png")
FORMATS = ("webdataset", "array_record")


def make(folder: Path, encoding: str = "lab_uint8", **options) -> str:
    folder.mkdir()
    return write_dataset(folder, encoding, **options)


def records(folder: str, split: str) -> list[bytes]:
    """Return the records of a dataset, in its order."""
    opened = dataset_dir.open_dataset_dir(folder)
    return [
        record
        for shard in opened.shards(split)
        for _, record in numpy_reader.read_stored(opened, shard)
    ]


def read_array_records(folder: Path, split: str) -> list[bytes]:
    return [
        record
        for path in sorted(folder.glob(f"{split}-*.array_record"))
        for record in ArrayRecordReader(str(path)).read_all()
    ]


def read_webdataset(folder: Path, split: str) -> list[dict]:
    paths = sorted(map(str, folder.glob(f"{split}-*.tar")))
    return list(webdataset.WebDataset(paths, shardshuffle=False).decode())


def digests(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


@pytest.mark.parametrize("compression", ["none", "gzip"])
@pytest.mark.parametrize("embedding", [True, False])
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_webdataset_reads_the_same_examples(tmp_path, capsys, encoding, embedding, compression):
    folder = make(tmp_path / "in", encoding, embedding=embedding, compression=compression)
    output = tmp_path / "out"
    arguments = [folder, "--to", "webdataset", "--output", str(output)]
    assert export.main([*arguments, "--examples_per_shard", "4"]) == 0
    said = "10 examples for training and 2 for validation in 4 shards"
    assert capsys.readouterr().out == f"{output}: {said}\n"
    assert names(output) == [
        "export.json",
        *(f"train-00000{number}.tar" for number in range(3)),
        "validation-000000.tar",
    ]
    features = dataset.read_info(folder).features
    for split in ("train", "validation"):
        read, wanted = read_webdataset(output, split), records(folder, split)
        assert len(read) == len(wanted)
        for sample, record, example in zip(
            read, wanted, dataset.examples(folder, split), strict=True
        ):
            stored = example_codec.decode_example(record, features)
            assert f"{sample['__key__']}.jpeg" == stored["image_name"].decode()
            assert sample["cls"] == example["image_label"] >= 0
            assert sample["json"] == {
                "url": stored["image_url"].decode(),
                "id": stored["image_id"].decode(),
                "class": stored["image_class"].decode(),
                "width": stored["original_width"],
                "height": stored["original_height"],
            }
            planes = {"image_l": "l.npy", "image_ab": "ab.npy", "image_embedding": "embedding.npy"}
            assert {planes[name] for name in planes if name in stored} == {
                key for key in sample if key.endswith(".npy")
            }
            for name, key in planes.items():
                if name in stored:
                    assert sample[key].dtype == stored[name].dtype
                    np.testing.assert_array_equal(sample[key], stored[name])
            assert ("png" in sample) == (encoding == "rgb_png")
    if encoding == "rgb_png":
        [first, *_] = webdataset.WebDataset([str(output / "train-000000.tar")], shardshuffle=False)
        assert (
            first["png"]
            == example_codec.decode_example(records(folder, "train")[0], features)["image_png"]
        )


@pytest.mark.parametrize("compression", ["none", "gzip"])
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_array_record_holds_the_same_records(tmp_path, encoding, compression):
    folder = make(tmp_path / "in", encoding, compression=compression)
    output = tmp_path / "out"
    arguments = [folder, "--to", "array_record", "--output", str(output)]
    assert export.main([*arguments, "--examples_per_shard", "4"]) == 0
    decode = dataset.record_decoder(output)
    for split in ("train", "validation"):
        read = read_array_records(output, split)
        assert read == records(folder, split)
        for record, example in zip(read, dataset.examples(folder, split), strict=True):
            decoded = decode(record)
            assert set(decoded) == set(example)
            for name, value in example.items():
                np.testing.assert_array_equal(decoded[name], value)


def test_an_export_of_rgb_png_is_an_input_again(tmp_path):
    folder = make(tmp_path / "in", "rgb_png")
    output, again = tmp_path / "out", tmp_path / "again"
    assert export.main([folder, "--to", "webdataset", "--output", str(output)]) == 0
    fixed = "--checkpoint none --image_size 16 --encoding rgb_png --report=false"
    images = str(output / "train-000000.tar")
    assert run.main(["--images", images, "--output", str(again), *fixed.split()]) == 0
    wanted = {example["image_name"]: example for example in dataset.examples(folder)}
    read = list(dataset.examples(again))
    assert len(read) == len(wanted) == 10
    for example in read:
        original = wanted[example["image_id"] + b".jpeg"]
        assert example["image_class"] == b"%d" % original["image_label"]
        np.testing.assert_array_equal(example["image_ab"], original["image_ab"])


def test_export_json_describes_the_export(tmp_path):
    folder = make(tmp_path / "in")
    output = tmp_path / "out"
    assert export.main([folder, "--to", "webdataset", "--output", f"{output}/"]) == 0
    info = json.loads((output / "export.json").read_text())
    assert (info["format"], info["examples_per_shard"], info["excluded"]) == ("webdataset", 500, [])
    assert info["files"] == [
        {"name": f"{split}-000000.tar", "split": split, "examples": number, "bytes": size}
        for split, number in (("train", 10), ("validation", 2))
        for size in [(output / f"{split}-000000.tar").stat().st_size]
    ]
    assert info["dataset"]["counts"]["examples"] == 12


@pytest.mark.parametrize("to", FORMATS)
def test_the_files_are_the_same_on_each_run(tmp_path, to):
    folder = make(tmp_path / "in")
    arguments = [folder, "--to", to, "--examples_per_shard", "3", "--output"]
    assert export.main([*arguments, str(tmp_path / "a")]) == 0
    workers = ["--direct_num_workers", "2", "--direct_running_mode", "multi_threading"]
    assert export.main([*arguments, str(tmp_path / "b"), *workers]) == 0
    assert len(digests(tmp_path / "a")) == 6
    assert digests(tmp_path / "a") == digests(tmp_path / "b")


def test_worker_processes_write_the_same(tmp_path):
    folder = make(tmp_path / "in")
    arguments = [folder, "--to", "array_record", "--examples_per_shard", "3", "--output"]
    assert export.main([*arguments, str(tmp_path / "a")]) == 0
    done = subprocess.run(
        [
            *(sys.executable, "-m", "beam_pipeline.export", *arguments, str(tmp_path / "b")),
            *("--direct_num_workers", "2"),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert digests(tmp_path / "a") == digests(tmp_path / "b")


@pytest.mark.parametrize("to", FORMATS)
def test_an_object_store_holds_the_same(tmp_path, to):
    folder = make(tmp_path / "in")
    arguments = ["--to", to, "--examples_per_shard", "3", "--output"]
    assert export.main([folder, *arguments, str(tmp_path / "a")]) == 0
    (tmp_path / "b").mkdir()
    assert export.main([PREFIX + folder, *arguments, f"{PREFIX}{tmp_path}/b"]) == 0
    assert digests(tmp_path / "a") == digests(tmp_path / "b")
    decode = dataset.record_decoder(f"{PREFIX}{tmp_path}/b")
    assert decode(records(folder, "train")[0])["image_l"].shape == (16, 16, 1)


@pytest.fixture(scope="module")
def similar(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return a dataset: two training images are like a validation image, one like another."""
    folder = tmp_path_factory.mktemp("similar")
    (folder / "photos").mkdir()
    for number in range(12):
        (folder / "photos" / f"{number}.jpg").write_bytes(image(f"{number}.jpg", 160, 120))
    for number in (12, 13):
        (folder / "photos" / f"{number}.jpg").write_bytes(image("3.jpg", 200, 150))
    (folder / "photos" / "14.jpg").write_bytes(image("5.jpg", 200, 150))
    (folder / "ids.txt").write_text("3\n")
    fixed = "--checkpoint none --image_size 32 --near_duplicates --report=false"
    arguments = ["--images", str(folder / "photos"), "--output", str(folder / "out")]
    arguments += ["--validation_ids", str(folder / "ids.txt"), "--examples_per_shard", "5"]
    assert run.main([*arguments, *fixed.split()]) == 0
    return str(folder / "out")


@pytest.mark.parametrize(("exclude", "kept"), [("leaks", 12), ("leaks,near_duplicates", 11)])
@pytest.mark.parametrize("to", FORMATS)
def test_near_duplicates_are_left_out(similar, tmp_path, to, exclude, kept):
    output = tmp_path / "out"
    arguments = [similar, "--to", to, "--output", str(output), "--exclude", exclude]
    assert export.main([*arguments, "--examples_per_shard", "4"]) == 0
    wanted = [
        example["image_name"].decode()
        for example in dataset.examples(similar, exclude=exclude.split(","))
    ]
    assert len(wanted) == kept
    if to == "webdataset":
        read = [f"{sample['__key__']}.jpeg" for sample in read_webdataset(output, "train")]
    else:
        decode = dataset.record_decoder(output)
        read = [
            decode(record)["image_name"].decode() for record in read_array_records(output, "train")
        ]
    assert read == wanted


def test_an_export_is_replaced_on_request(tmp_path, capsys):
    folder, output = make(tmp_path / "in"), tmp_path / "out"
    arguments = [folder, "--output", str(output), "--to"]
    assert export.main([*arguments, "webdataset"]) == 0
    assert export.main([*arguments, "array_record"]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert "give --overwrite" in line
    assert "train-000000.tar" in names(output)
    assert export.main([*arguments, "array_record", "--overwrite"]) == 0
    assert names(output) == [
        "export.json",
        "train-000000.array_record",
        "validation-000000.array_record",
    ]


REFUSED = {
    "no dataset": (["nowhere", "--to", "webdataset", "--output", "out"], "no completed run found"),
    "the dataset's own folder": (["in", "--to", "webdataset", "--output", "in"], "which no export"),
    "folder with other files": (["in", "--to", "webdataset", "--output", "full"], "holds notes"),
    "output below a file": (["in", "--to", "webdataset", "--output", "file/out"], "file/out"),
    "output with a wildcard": (["in", "--to", "webdataset", "--output", "out*"], "out*"),
    "no near-duplicates": (
        ["in", "--to", "webdataset", "--output", "out", "--exclude", "leaks"],
        "without --near_duplicates",
    ),
    "option of a run": (
        ["in", "--to", "webdataset", "--output", "out", "--image_size", "3"],
        "--image_size is not an option",
    ),
    "typing error": (
        ["in", "--to", "webdataset", "--output", "out", "--examples-per-shard", "3"],
        "did you mean --examples_per_shard?",
    ),
    "runner that there is not": (
        ["in", "--to", "webdataset", "--output", "out", "--runner", "Bogus"],
        "Bogus",
    ),
}


@pytest.mark.parametrize("arguments", REFUSED.values(), ids=REFUSED.keys())
def test_refuses_before_anything_is_written(arguments, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    make(tmp_path / "in")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes").write_text("mine")
    (tmp_path / "file").write_text("")
    before = sorted(tmp_path.rglob("*"))
    given, reported = arguments
    assert export.main(given) == 2
    printed = capsys.readouterr()
    [line] = printed.err.splitlines()
    assert reported in line
    assert printed.out == ""
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    "given",
    [
        ["in", "--output", "out"],
        ["in", "--to", "csv", "--output", "out"],
        ["in", "--to", "webdataset"],
        ["in", "--to", "webdataset", "--output", "out", "--examples_per_shard", "0"],
        ["in", "--to", "webdataset", "--output", "out", "--exclude", "grey"],
    ],
)
def test_an_unusable_command_line_ends_with_status_2(given, capsys):
    with pytest.raises(SystemExit, match="2"):
        export.main(given)
    assert "usage: " in capsys.readouterr().err


def test_dataflow_cannot_reach_local_folders():
    for folders in (("in", "gs://bucket/out"), ("gs://bucket/in", "out")):
        options = ExportOptions(folders[0], "webdataset", folders[1], 500)
        with pytest.raises(UsageError, match=r"(in|out) is on this machine"):
            export_launcher.refuse_local_folders(options)
    export_launcher.refuse_local_folders(ExportOptions("gs://b/in", "webdataset", "gs://b/out", 1))


def test_a_missing_library_is_named(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "array_record.python.array_record_module", None)
    folder = make(tmp_path / "in")
    assert export.main([folder, "--to", "array_record", "--output", str(tmp_path / "out")]) == 2
    assert "pip install 'beam_pipeline[array_record]'" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def flip(data: bytes, index: int) -> bytes:
    return data[:index] + bytes([data[index] ^ 1]) + data[index + 1 :]


@pytest.mark.parametrize("compression", ["none", "gzip"])
@pytest.mark.parametrize("to", FORMATS)
def test_a_damaged_shard_is_named(tmp_path, capsys, to, compression):
    folder = make(tmp_path / "in", compression=compression)
    [shard] = (tmp_path / "in").glob("lab_images_00001-*[dz]")
    shard.write_bytes(flip(shard.read_bytes(), shard.stat().st_size // 2))
    output = tmp_path / "out"
    arguments = [folder, "--to", to, "--output", str(output), "--examples_per_shard", "5"]
    assert export.main(arguments) == 1
    [line] = capsys.readouterr().err.splitlines()
    assert str(shard) in line and "Traceback" not in line
    # What belongs to other shards may be there; nothing looks complete.
    suffix = {"webdataset": "tar", "array_record": "array_record"}[to]
    assert set(names(output)) <= {f"train-000000.{suffix}", f"validation-000000.{suffix}"}


@pytest.mark.parametrize("change", ["missing", "short", "index"])
def test_a_dataset_that_is_not_complete_is_refused(tmp_path, capsys, change):
    folder = make(tmp_path / "in")
    shard = tmp_path / "in" / "lab_images_00001-of-00003.tfrecord"
    if change == "missing":
        shard.unlink()
    elif change == "short":
        cut_shard(shard, 3)
    else:
        shard.with_name(f"{shard.name}.idx").write_bytes(b"0 17\n" * 5)
    output = tmp_path / "out"
    arguments = [folder, "--to", "webdataset", "--output", str(output)]
    status = export.main([*arguments, "--examples_per_shard", "3"])
    [line] = capsys.readouterr().err.splitlines()
    assert status == (1 if change == "index" else 2)
    assert shard.name in line
    assert not (output / "export.json").exists()


@pytest.mark.parametrize("extra", [-1, 1])
def test_a_shard_with_another_number_of_examples_is_named(tmp_path, extra):
    folder = dataset_dir.open_dataset_dir(make(tmp_path / "in"))
    [shard, *_] = folder.shards("train")
    options = ExportOptions(folder.path, "webdataset", str(tmp_path / "out"), 500)
    [planned, _] = graph.plan_shards(options)
    cut = tmp_path / "in" / shard.name
    if extra < 0:
        cut_shard(cut, shard.examples - 1)
    else:
        cut.write_bytes(cut.read_bytes() + cut.read_bytes())
    (tmp_path / "out").mkdir()
    writer = graph.WriteShards(options)
    writer.setup()
    with pytest.raises(ExportError, match=f"{shard.path} does not hold 5 examples"):
        list(writer.process(planned))
    assert names(tmp_path / "out") == []


def test_missing_shards_do_not_make_an_export_complete(tmp_path):
    folder = make(tmp_path / "in")
    options = ExportOptions(folder, "webdataset", str(tmp_path), 4)
    with pytest.raises(ExportError, match=r"holds 0 train examples, .* has 10"):
        graph.finish(options, [])
    assert not (tmp_path / "export.json").exists()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("to", FORMATS)
def test_a_killed_export_leaves_no_file_that_looks_complete(tmp_path, to, number):
    """The process gets a signal while it writes the third shard."""
    folder = make(tmp_path / "in")
    program = f"""
import os, sys, time
from beam_pipeline import export
from beam_pipeline.reading import numpy_reader

read, seen = numpy_reader.read_stored, []

def read_and_end(*arguments):
    for stored in read(*arguments):
        seen.append(stored)
        if len(seen) == 8:
            os.kill(os.getpid(), {number.value})
            time.sleep(60)
        yield stored

numpy_reader.read_stored = read_and_end
sys.exit(export.main(sys.argv[1:]))
"""
    output = tmp_path / "out"
    arguments = [folder, "--to", to, "--examples_per_shard", "3", "--output"]
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments, str(output)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=50,
    )
    killed = number == signal.SIGKILL
    assert done.returncode == (-number if killed else 128 + number)
    if not killed:
        assert done.stdout == ""
        [line] = done.stderr.splitlines()
        assert "--overwrite" in line
    assert export.main([*arguments, str(tmp_path / "complete")]) == 0
    complete = digests(tmp_path / "complete")
    left = {
        name: digest
        for name, digest in digests(output).items()
        if not name.endswith(".tmp") and name != "run.lock"
    }
    assert len(left) == 2
    assert left.items() < complete.items()
    assert export.main([*arguments, str(output), "--overwrite"]) == 0
    assert digests(output) == complete


def test_help_describes_the_formats(capsys):
    with pytest.raises(SystemExit, match="0"):
        export.main(["--help"])
    shown = capsys.readouterr().out
    for option in ("--to", "webdataset", "array_record", "--exclude", "--overwrite"):
        assert option in shown


def test_a_broken_export_json_is_named(tmp_path):
    for content, message in (
        ("[]", "Expected"),
        ("{", "not JSON"),
        ('{"format_version": 1}', "missing required field"),
    ):
        (tmp_path / "export.json").write_text(content)
        with pytest.raises(ValueError, match=rf"{tmp_path}/export\.json is not .*{message}"):
            dataset.record_decoder(tmp_path)
    (tmp_path / "export.json").unlink()
    with pytest.raises(FileNotFoundError, match="no completed run found"):
        dataset.record_decoder(str(tmp_path))


def test_a_decoder_refuses_other_records(tmp_path):
    decode = dataset.record_decoder(make(tmp_path / "in"))
    for record in (b"", b"\xff" * 9, b"x"):
        with pytest.raises(ValueError):
            decode(record)
