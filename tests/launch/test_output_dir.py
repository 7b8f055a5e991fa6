"""Tests that a run removes only what a run writes, and refuses an unusable output folder."""

import dataclasses
import sys
from typing import Any

import numpy as np
import pytest
from output_folder import make_config, names
from written_dataset import make_info

from beam_pipeline.config import Config, UsageError
from beam_pipeline.dataset_info import ExampleFile
from beam_pipeline.fetching import kept_images
from beam_pipeline.images import png_notes
from beam_pipeline.launch import output_dir
from beam_pipeline.sources import listing
from beam_pipeline.storage import filesystem

UUID = "0123456789abcdef" * 2
OURS = (
    "dataset.json",
    "metrics.json",
    "report.html",
    "commit-00004.json",
    f"commit-00005.json.{UUID}.tmp",
    f"dataset.json.{UUID}.tmp",
    "failures-00000-of-00001.jsonl",
    "lab_images_00000-of-00002.tfrecord",
    "lab_images_00000-of-00009.tfrecord.gz",
    "val_lab_images_00000-of-00001.tfrecord",
)
THEIRS = (
    "notes.txt",
    "images-00000-of-00001.tfrecord",
    "reports.html",
    "failures-of-2019.md",
    "lab_images_plan.txt",
    "commit-2024-notes.txt",
    "dataset.json.mine.tmp",
    "lab_images_extra.tfrecord",
)


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "[::1]", "10.1.2.3", "0x7f.1"])
def test_a_fallback_on_a_private_address_needs_the_option(tmp_path, host):
    (tmp_path / "list.txt").touch()
    options = {"fallback": "wayback", "fallback_url": f"http://{host}:8080/a/"}
    config = make_config(tmp_path / "out", input=str(tmp_path / "list.txt"), **options)
    with pytest.raises(UsageError, match="give --allow_private_addresses as well"):
        output_dir.check(config)
    output_dir.check(dataclasses.replace(config, allow_private_addresses=True))


def test_clears_what_a_run_writes_and_nothing_else(tmp_path):
    for name in (*OURS, *THEIRS):
        (tmp_path / name).write_text(name)
    for folder in (
        f"beam-temp-lab_images_-{UUID}",
        f"beam-temp-failures-00003--{UUID}",
        "beam-temp-of-another-program",
    ):
        (tmp_path / folder).mkdir()
    (tmp_path / f"beam-temp-lab_images_-{UUID}" / "shard").write_text("half")
    output_dir.prepare(make_config(tmp_path), [])
    assert names(tmp_path) == sorted([*THEIRS, "beam-temp-of-another-program", "run.json"])


def test_makes_the_folders(tmp_path):
    output_dir.prepare(
        make_config(tmp_path / "a" / "b", original_dir=str(tmp_path / "c" / "d")), []
    )
    assert (tmp_path / "a" / "b").is_dir() and (tmp_path / "c" / "d").is_dir()


@pytest.mark.parametrize(
    "pattern", ["failures-*.jsonl", "failures-00000-of-00001.jsonl", "*", "fail*"]
)
def test_a_list_that_would_be_replaced_is_refused(tmp_path, pattern):
    (tmp_path / "failures-00000-of-00001.jsonl").write_text("{}")
    with pytest.raises(UsageError, match="Choose another --output"):
        output_dir.check(make_config(tmp_path, input=str(tmp_path / pattern), overwrite=True))


def test_a_list_that_would_be_replaced_is_found_behind_a_glob(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "failures-00000-of-00001.jsonl").write_text("{}")
    for pattern in ("*/failures-*.jsonl", "../*/out/fail*", "out/../out/failures-*"):
        with pytest.raises(UsageError, match="Choose another --output"):
            output_dir.check(
                make_config(tmp_path / "out", input=str(tmp_path / pattern), overwrite=True)
            )


def test_what_a_kill_left_of_originals_is_removed(tmp_path):
    (tmp_path / "originals").mkdir()
    config = make_config(tmp_path / "out", original_dir=str(tmp_path / "originals"))
    # Another run, with another output folder, may be writing its file.
    kept = ["0123.jpeg", "0123.jpeg.4567.tmp", "notes.tmp"]
    for name in (*kept, f"0123.jpeg.{kept_images.temporary_mark(config)}89.tmp"):
        (tmp_path / "originals" / name).write_text(name)
    output_dir.prepare(config, [])
    assert names(tmp_path / "originals") == kept


def test_a_list_beside_the_dataset_is_fine(tmp_path):
    (tmp_path / "urls.txt").write_text("http://a")
    output_dir.check(make_config(tmp_path, input=str(tmp_path / "urls.txt")))


def test_an_unknown_filesystem_is_reported(tmp_path):
    with pytest.raises(UsageError, match=r"--output foo://b/x cannot be reached"):
        output_dir.check(Config(input="urls.txt", output="foo://b/x"))


@pytest.mark.parametrize("option", ["input", "output", "checkpoint", "original_dir"])
def test_an_object_store_without_its_client_is_refused(monkeypatch, tmp_path, option):
    monkeypatch.setitem(sys.modules, "boto3", None)
    options: dict[str, Any] = {
        "input": str(tmp_path / "urls.txt"),
        "output": str(tmp_path / "out"),
        option: "s3://bucket/x",
    }
    with pytest.raises(UsageError, match=rf"--{option} s3://bucket/x .*beam_pipeline\[aws\]"):
        output_dir.check(Config(**options))


def test_workers_elsewhere_get_absolute_paths(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = Config(
        input="urls.txt",
        output="data",
        original_dir="gs://bucket/originals",
        checkpoint="model.ckpt",
    )
    whole = output_dir.make_absolute(config)
    assert (whole.input, whole.output, whole.checkpoint) == tuple(
        f"{tmp_path}/{name}" for name in ("urls.txt", "data", "model.ckpt")
    )
    assert (whole.original_dir, whole.resized_dir) == ("gs://bucket/originals", None)
    several = dataclasses.replace(config, input="a.csv,c/*.csv, gs://bucket/b.csv")
    assert output_dir.make_absolute(several).input == (
        f"{tmp_path}/a.csv,{tmp_path}/c/*.csv,gs://bucket/b.csv"
    )
    for checkpoint in ("untrained", "none", "http://a.example/model.tar.gz"):
        assert (
            output_dir.make_absolute(dataclasses.replace(config, checkpoint=checkpoint)).checkpoint
            == checkpoint
        )


def test_several_lists_keep_their_commas_as_absolute_paths(tmp_path, monkeypatch):
    (tmp_path / "x,y").mkdir()
    (tmp_path / "x,y" / "a,b.txt").write_bytes(b"http://a.example/1.jpg\n")
    monkeypatch.chdir(tmp_path / "x,y")
    config = output_dir.make_absolute(Config(input="a,b.txt,*.txt", output="data"))
    assert listing.list_files(config) == [f"{tmp_path}/x,y/a,b.txt"] * 2


def test_a_url_is_no_file_that_the_output_would_replace():
    output_dir._check_input_is_elsewhere(Config(input="http://a.example/urls.txt", output="out"))


@pytest.mark.parametrize("value", ["here", "here,gs://a/urls.txt"])
def test_lists_that_workers_cannot_reach_are_refused(value):
    with pytest.raises(UsageError, match="--input here is on this machine"):
        output_dir.refuse_local_files(Config(input=value, output="gs://a/data"))


@pytest.mark.parametrize("name", ["input", "output", "resized_dir"])
def test_a_file_that_workers_cannot_reach_is_refused(name):
    options: dict[str, Any] = {
        "input": "gs://a/urls.txt",
        "output": "gs://a/data",
        "resized_dir": "gs://a/resized",
        name: "here",
    }
    config = Config(**options)
    with pytest.raises(UsageError, match=f"--{name} here is on this machine"):
        output_dir.refuse_local_files(config)


def test_what_a_repeated_attempt_left_is_removed(tmp_path):
    for name in (
        "lab_images_00000-of-00001.tfrecord",
        "lab_images_00000-of-00002.tfrecord",
        "notes.txt",
    ):
        (tmp_path / name).write_text("x")
    (tmp_path / f"beam-temp-lab_images_-{UUID}" / "deeper").mkdir(parents=True)
    (tmp_path / f"beam-temp-lab_images_-{UUID}" / "deeper" / "half").write_text("x")
    info = make_info(files=[ExampleFile("lab_images_00000-of-00001.tfrecord", "train", 1, 1)])
    output_dir.clear_strays(str(tmp_path), info)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "lab_images_00000-of-00001.tfrecord",
        "notes.txt",
    ]


@pytest.mark.parametrize("content", [b"nonsense", None])
def test_labels_that_cannot_be_read_are_refused(tmp_path, content):
    if content:
        (tmp_path / "names.txt").write_bytes(content)
    with pytest.raises(UsageError, match=r"--class_names .*names\.txt"):
        output_dir.check(
            Config(
                input=str(tmp_path),
                output=str(tmp_path / "out"),
                class_names=str(tmp_path / "names.txt"),
            )
        )


def test_statistics_need_what_tensorflow_can_write(tmp_path, monkeypatch):
    monkeypatch.setattr(filesystem, "check_client", lambda path: None)
    monkeypatch.setattr(filesystem, "list_folder", lambda *arguments: {})
    with pytest.raises(UsageError, match="--statistics needs a folder that TensorFlow can write"):
        output_dir.check(Config(input=str(tmp_path), output="s3://bucket/out", statistics=True))


def test_a_folder_of_that_name_is_not_taken_for_statistics(tmp_path):
    (tmp_path / "transform" / "transform_fn" / "variables").mkdir(parents=True)
    (tmp_path / "transform" / "transform_fn" / "variables" / "a").write_text("a run's")
    (tmp_path / "transform" / "precious.py").write_text("mine")
    output_dir.prepare(make_config(tmp_path), [])
    assert [
        str(path.relative_to(tmp_path)) for path in tmp_path.joinpath("transform").rglob("*")
    ] == ["transform/precious.py"]


FOLDERS = [("output", "original_dir"), ("output", "resized_dir"), ("original_dir", "resized_dir")]


@pytest.mark.parametrize(("one", "other"), FOLDERS)
@pytest.mark.parametrize("spelling", ["{}", "{}/", "{}/../same", "link"])
def test_one_folder_for_two_purposes_is_refused(tmp_path, monkeypatch, one, other, spelling):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "same").mkdir()
    (tmp_path / "link").symlink_to("same")
    options: dict[str, Any] = {
        "output": str(tmp_path / "out"),
        one: str(tmp_path / "same"),
        other: spelling.format("same"),
    }
    with pytest.raises(UsageError, match=f"--{other} .* is also the folder of --{one}, "):
        output_dir.check(Config(input=__file__, checkpoint="none", **options))


def test_images_that_no_run_has_resized_are_not_in_the_folder_of_resized_ones(tmp_path):
    (tmp_path / "images").mkdir()
    config = make_config(tmp_path / "out", resized_dir=str(tmp_path / "images"), input=__file__)
    pixels = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
    (tmp_path / "images" / "0123.jpeg").write_bytes(
        png_notes.encode_png(pixels, resize="pad", original="8x8")
    )
    output_dir.check(config)
    (tmp_path / "images" / "4567.jpeg").write_bytes(png_notes.encode_png(pixels))
    with pytest.raises(
        UsageError, match=r"--resized_dir .*images contains 4567.jpeg, which no run has resized"
    ):
        output_dir.check(config)
