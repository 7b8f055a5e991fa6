"""What is in the folder decides what is done, and only what a run writes is removed."""

import dataclasses
import sys
from typing import Any

import pytest

from beam_pipeline import books, files, outputs
from beam_pipeline.config import Config, UsageError
from beam_pipeline.sinks import Shard

OURS = (
    "dataset.json",
    "metrics.json",
    "report.html",
    "commit-00004.json",
    "commit-00005.json.0123.tmp",
    "dataset.json.4567.tmp",
    "failures-00000-of-00001.jsonl",
    "lab_images-00000-of-00002.tfrecord",
    "lab_images-00000-of-00009.tfrecord.gz",
    "val_lab_images-00000-of-00001.tfrecord",
)
THEIRS = ("notes.txt", "images-00000-of-00001.tfrecord", "reports.html", "failures-of-2019.md", "lab_images-plan.txt")


def make_config(folder, **options) -> Config:
    return Config(**{"input": "http://127.0.0.1/urls.txt", "output": str(folder), "checkpoint": "none", **options})


def close_commit(config, number=0, is_last=False):
    shard = Shard(f"lab_images-{number:05}-00000-of-00001.tfrecord", 1, 10)
    books.close_commit(config, number, is_last, "", None, {"lines": 1}, [shard], [], [], [], [])
    return shard.name


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_clears_what_a_run_writes_and_nothing_else(tmp_path):
    for name in (*OURS, *THEIRS):
        (tmp_path / name).write_text(name)
    for folder in ("beam-temp-lab_images-1", "beam-temp-failures-2"):
        (tmp_path / folder).mkdir()
    (tmp_path / "beam-temp-lab_images-1" / "shard").write_text("half")
    outputs.prepare(make_config(tmp_path), [])
    assert names(tmp_path) == sorted(THEIRS)


def test_keeps_whole_commits(tmp_path):
    config = make_config(tmp_path)
    kept = close_commit(config)
    for name in (kept, "lab_images-00001-00000-of-00001.tfrecord", "notes.txt"):
        (tmp_path / name).write_text(name)
    found = outputs.check(config)
    assert found.finished is None and len(found.commits) == 1
    outputs.prepare(config, found.commits)
    assert names(tmp_path) == ["commit-00000.json", kept, "notes.txt"]


def test_a_whole_dataset_is_found(tmp_path):
    config = make_config(tmp_path)
    assert outputs.check(config) == (None, [])
    close_commit(config, is_last=True)
    found = outputs.check(config)
    assert found.finished and found.finished["counts"]["examples"] == 1
    (tmp_path / "commit-00000.json").write_text("left when the run was stopped at its very end")
    outputs.clear_strays(str(tmp_path), found.finished)
    assert names(tmp_path) == ["dataset.json"]


@pytest.mark.parametrize("is_last", [False, True])
def test_another_dataset_is_refused_or_replaced(tmp_path, is_last):
    close_commit(make_config(tmp_path), is_last=is_last)
    with pytest.raises(UsageError, match="--encoding lab_float32, not rgb_png"):
        outputs.check(make_config(tmp_path, encoding="rgb_png"))
    assert outputs.check(make_config(tmp_path, encoding="rgb_png", overwrite=True)) == (None, [])


def test_what_does_not_shape_the_dataset_may_change(tmp_path):
    close_commit(make_config(tmp_path))
    assert len(outputs.check(make_config(tmp_path, fetch_timeout=3, urls_per_commit=7)).commits) == 1


def test_overwriting_goes_on_where_it_was_interrupted_but_not_on_a_whole_dataset(tmp_path):
    config = make_config(tmp_path, overwrite=True)
    close_commit(config)
    assert len(outputs.check(config).commits) == 1
    close_commit(config, 1, is_last=True)
    assert outputs.check(config) == (None, [])


def test_overwriting_tries_again_what_was_refused_at_its_end(tmp_path):
    config = make_config(tmp_path, max_failed_fraction=0.1)
    failures = Shard("failures-00000-of-00001.jsonl", 1, 10)
    with pytest.raises(books.BooksError, match="not one image survived"):
        books.close_commit(config, 0, True, "", None, {"lines": 1, "failures/fetch/dns": 1}, [], [], [failures], [], [])
    assert len(outputs.check(config).commits) == 1
    assert outputs.check(make_config(tmp_path, overwrite=True)) == (None, [])


@pytest.mark.parametrize("name", ["dataset.json", "commit-00000.json"])
@pytest.mark.parametrize("content", ["{", "[]", '{"options": 3}'])
def test_a_broken_record_is_named(tmp_path, name, content):
    (tmp_path / name).write_text(content)
    with pytest.raises(UsageError, match="holds a broken"):
        outputs.check(make_config(tmp_path))


def test_makes_the_folders(tmp_path):
    outputs.prepare(make_config(tmp_path / "a" / "b", original_dir=str(tmp_path / "c" / "d")), [])
    assert (tmp_path / "a" / "b").is_dir() and (tmp_path / "c" / "d").is_dir()


@pytest.mark.parametrize("pattern", ["failures-*.jsonl", "failures-00000-of-00001.jsonl", "*", "fail*"])
def test_a_list_that_would_be_replaced_is_refused(tmp_path, pattern):
    (tmp_path / "failures-00000-of-00001.jsonl").write_text("{}")
    with pytest.raises(UsageError, match="choose another --output"):
        outputs.check(make_config(tmp_path, input=str(tmp_path / pattern), overwrite=True))


def test_a_list_that_would_be_replaced_is_found_behind_a_glob(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "failures-00000-of-00001.jsonl").write_text("{}")
    for pattern in ("*/failures-*.jsonl", "../*/out/fail*", "out/../out/failures-*"):
        with pytest.raises(UsageError, match="choose another --output"):
            outputs.check(make_config(tmp_path / "out", input=str(tmp_path / pattern), overwrite=True))


def test_a_missing_commit_is_noticed(tmp_path):
    config = make_config(tmp_path)
    for number in range(3):
        close_commit(config, number)
    (tmp_path / "commit-00001.json").unlink()
    with pytest.raises(UsageError, match="the record of a commit is missing"):
        outputs.check(config)
    assert outputs.check(make_config(tmp_path, overwrite=True)) == (None, [])


def test_what_a_kill_left_of_originals_is_removed(tmp_path):
    (tmp_path / "originals").mkdir()
    for name in ("0123.jpeg", "0123.jpeg.4567.tmp", "notes.tmp"):
        (tmp_path / "originals" / name).write_text(name)
    outputs.prepare(make_config(tmp_path / "out", original_dir=str(tmp_path / "originals")), [])
    assert names(tmp_path / "originals") == ["0123.jpeg", "notes.tmp"]


def test_a_list_beside_the_dataset_is_fine(tmp_path):
    (tmp_path / "urls.txt").write_text("http://a")
    assert outputs.check(make_config(tmp_path, input=str(tmp_path / "urls.txt"))) == (None, [])


def test_an_unknown_filesystem_is_told(tmp_path):
    with pytest.raises(UsageError, match=r"--output foo://b/x cannot be reached"):
        outputs.check(Config(input="urls.txt", output="foo://b/x"))


@pytest.mark.parametrize("option", ["input", "output", "checkpoint", "original_dir"])
def test_an_object_store_without_its_client_is_refused(monkeypatch, tmp_path, option):
    monkeypatch.setitem(sys.modules, "boto3", None)
    options: dict[str, Any] = {"input": str(tmp_path / "urls.txt"), "output": str(tmp_path / "out"), option: "s3://bucket/x"}
    with pytest.raises(UsageError, match=rf"--{option} s3://bucket/x .*beam_pipeline\[aws\]"):
        outputs.check(Config(**options))


def test_workers_elsewhere_are_given_whole_paths(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = Config(input="urls.txt", output="data", original_dir="gs://bucket/originals", checkpoint="model.ckpt")
    whole = outputs.make_absolute(config)
    assert (whole.input, whole.output, whole.checkpoint) == tuple(
        f"{tmp_path}/{name}" for name in ("urls.txt", "data", "model.ckpt")
    )
    assert (whole.original_dir, whole.resized_dir) == ("gs://bucket/originals", None)
    for checkpoint in ("untrained", "none", "http://a.example/model.tar.gz"):
        assert outputs.make_absolute(dataclasses.replace(config, checkpoint=checkpoint)).checkpoint == checkpoint


@pytest.mark.parametrize("name", ["input", "output", "resized_dir"])
def test_a_file_that_workers_cannot_reach_is_refused(name):
    options: dict[str, Any] = {"input": "gs://a/urls.txt", "output": "gs://a/data", "resized_dir": "gs://a/resized", name: "here"}
    config = Config(**options)
    with pytest.raises(UsageError, match=f"--{name} here lies on this machine"):
        outputs.refuse_local_files(config)


def test_what_a_repeated_attempt_left_is_removed(tmp_path):
    for name in ("lab_images-00000-of-00001.tfrecord", "lab_images-00000-of-00002.tfrecord", "notes.txt"):
        (tmp_path / name).write_text("x")
    (tmp_path / "beam-temp-lab_images-1" / "deeper").mkdir(parents=True)
    (tmp_path / "beam-temp-lab_images-1" / "deeper" / "half").write_text("x")
    description = {"files": [{"name": "lab_images-00000-of-00001.tfrecord"}], "failure_files": []}
    outputs.clear_strays(str(tmp_path), description)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["lab_images-00000-of-00001.tfrecord", "notes.txt"]


@pytest.mark.parametrize("content", [b"nonsense", None])
def test_labels_that_cannot_be_read_are_refused(tmp_path, content):
    if content:
        (tmp_path / "names.txt").write_bytes(content)
    with pytest.raises(UsageError, match=r"--labels .*names\.txt"):
        outputs.check(Config(input=str(tmp_path), output=str(tmp_path / "out"), labels=str(tmp_path / "names.txt")))


def test_statistics_need_what_tensorflow_can_write(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "check_client", lambda path: None)
    monkeypatch.setattr(files, "list_folder", lambda *arguments: {})
    with pytest.raises(UsageError, match="--statistics needs a folder that TensorFlow can write"):
        outputs.check(Config(input=str(tmp_path), output="s3://bucket/out", statistics=True))


@pytest.mark.parametrize("name", ["report.html", "metrics.json"])
def test_what_no_run_has_written_is_not_replaced(tmp_path, name):
    (tmp_path / name).write_text("mine")
    with pytest.raises(UsageError, match=f"holds {name} without a dataset: move it away"):
        outputs.check(make_config(tmp_path, input=None, images=__file__))
    assert (tmp_path / name).read_text() == "mine"


def test_a_folder_of_that_name_is_not_taken_for_statistics(tmp_path):
    (tmp_path / "transform" / "transform_fn" / "variables").mkdir(parents=True)
    (tmp_path / "transform" / "transform_fn" / "variables" / "a").write_text("a run's")
    (tmp_path / "transform" / "precious.py").write_text("mine")
    outputs.prepare(make_config(tmp_path), [])
    assert [str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")] == ["transform", "transform/precious.py"]


def test_a_run_is_not_gone_on_with_without_the_statistics_it_began(tmp_path):
    options = {"checkpoint": "untrained", "input": None, "images": __file__}
    close_commit(make_config(tmp_path, **options))
    assert len(outputs.check(make_config(tmp_path, **options, statistics=True)).commits) == 1
    # So small commits have none by default.
    with pytest.raises(UsageError, match="--statistics True, not False"):
        outputs.check(make_config(tmp_path, **options, urls_per_commit=10))
    assert len(outputs.check(make_config(tmp_path, **options, urls_per_commit=10, statistics=True)).commits) == 1
