"""Tests of the command: its output, what it refuses before it fetches, and how it ends."""

import dataclasses
import hashlib
import json
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from origin import image

from beam_pipeline import dataset, pipeline, run, validate
from beam_pipeline.config import Config
from beam_pipeline.elements import Shard
from beam_pipeline.embedding import inception_resnet_v2
from beam_pipeline.launch import command_line
from beam_pipeline.metadata import commit_manifest
from beam_pipeline.storage import filesystem

ROOT = Path(__file__).parent.parent

UUID = "0123456789abcdef" * 2


@pytest.fixture
def urls(origin, tmp_path) -> str:
    path = tmp_path / "urls.txt"
    path.write_text(
        "".join(f"{origin.url(f'good/{index}.jpg')}\n" for index in range(5))
        + origin.url("status/404")
        + "\n"
    )
    return str(path)


def options(urls: str, output: Path, *others: str) -> list[str]:
    return [
        "--input",
        urls,
        "--output",
        str(output),
        "--checkpoint",
        "none",
        "--image_size",
        "16",
        "--allow_private_addresses",
        "--report=false",
        *others,
    ]


def command(*arguments: str, **keywords) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "beam_pipeline.run", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        **keywords,
    )


def test_makes_a_dataset(urls, tmp_path):
    done = command(*options(urls, tmp_path / "out"))
    assert done.returncode == 0
    assert "5 examples, 1 failure\n" in done.stdout
    assert "1 http_404" in done.stdout
    # No output of Beam or TensorFlow, and no progress line without a terminal.
    assert done.stderr == ""


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["--input", "urls.txt"],
        ["--input", "a", "--output", "b", "--image_size", "0"],
        ["--input", "a", "--output", "b", "--batch_size", "many"],
    ],
)
def test_answers_without_loading_beam(arguments):
    script = f"""
import sys
from beam_pipeline import dataset, run
try:
    status = run.main({arguments})
except SystemExit as end:
    status = end.code
assert "apache_beam" not in sys.modules and "tensorflow" not in sys.modules, "loaded"
sys.exit(status)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == (0 if arguments == ["--help"] else 2), done.stderr
    assert len(done.stderr.splitlines()) == (0 if arguments == ["--help"] else 1)


def test_help_lists_every_option():
    shown = command("--help").stdout
    for field in dataclasses.fields(Config):
        assert f"--{field.name}" in shown


REFUSED = {
    "no list": (["--output", "OUT"], "--input"),
    "no output": (["--input", "URLS"], "--output"),
    "list that is not there": (["--input", "nowhere.txt", "--output", "OUT"], "nowhere.txt"),
    "empty list": (["--input", "EMPTY", "--output", "OUT"], "contains no URL"),
    "broken list": (["--input", "BROKEN.gz", "--output", "OUT"], "BROKEN.gz"),
    "glob that matches nothing": (
        ["--images", "nowhere/*.jpg", "--output", "OUT"],
        "nowhere/*.jpg",
    ),
    "both": (["--input", "URLS", "--images", "*.jpg", "--output", "OUT"], "Give either --input"),
    "checkpoint that is not there": (
        ["--input", "URLS", "--output", "OUT", "--checkpoint", "no.ckpt"],
        "no.ckpt",
    ),
    "checkpoint that is none": (
        ["--input", "URLS", "--output", "OUT", "--checkpoint", "URLS"],
        "not a checkpoint",
    ),
    "size": (["--input", "URLS", "--output", "OUT", "--image_size", "0"], "--image_size"),
    "number": (["--input", "URLS", "--output", "OUT", "--batch_size", "many"], "--batch_size"),
    "choice": (["--input", "URLS", "--output", "OUT", "--encoding", "hsv"], "--encoding"),
    "typing error": (
        ["--input", "URLS", "--output", "OUT", "--image-size", "3"],
        "did you mean --image_size?",
    ),
    "abbreviation": (["--inp", "URLS", "--output", "OUT"], "did you mean --input?"),
    "stray word": (["--input", "URLS", "--output", "OUT", "more"], "'more'"),
    "output below a file": (["--input", "URLS", "--output", "URLS/out"], "is a file"),
    "runner that there is not": (
        ["--input", "URLS", "--output", "OUT", "--runner", "Bogus"],
        "Bogus",
    ),
    "option of Beam": (
        ["--input", "URLS", "--output", "OUT", "--direct_num_workers", "many"],
        "direct_num_workers",
    ),
    "choice of Beam": (
        ["--input", "URLS", "--output", "OUT", "--direct_running_mode", "fast"],
        "direct_running_mode",
    ),
    "value of Beam": (["--input", "URLS", "--output", "OUT", "--job_name"], "job_name"),
    "option that a runner needs": (
        ["--input", "URLS", "--output", "OUT", "--runner", "DataflowRunner"],
        "Beam",
    ),
    "nothing after what is skipped": (
        ["--input", "URLS", "--output", "OUT", "--skip", "50"],
        "--skip 50",
    ),
    "output with a wildcard": (["--input", "URLS", "--output", "OUT*"], "OUT*"),
}


@pytest.mark.parametrize("arguments", REFUSED.values(), ids=REFUSED.keys())
def test_refuses_before_anything_is_fetched_or_written(
    arguments, origin, urls, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "URLS").write_text(Path(urls).read_text())
    (tmp_path / "EMPTY").write_text("# nothing\n\n")
    (tmp_path / "BROKEN.gz").write_bytes(b"\x1f\x8b\x08\x00broken")
    before = sorted(path.name for path in tmp_path.iterdir())
    given, reported = arguments
    assert run.main(given) == 2
    printed = capsys.readouterr()
    [line] = printed.err.splitlines()
    assert reported in line
    assert printed.out == ""
    assert len(origin.requests) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_a_run_without_examples_is_reported(origin, tmp_path, capsys):
    (tmp_path / "urls.txt").write_text(origin.url("status/404") + "\n")
    assert run.main(options(str(tmp_path / "urls.txt"), tmp_path / "out")) == 1
    assert "no image succeeded" in capsys.readouterr().err


def test_a_complete_dataset_is_left_alone(origin, urls, tmp_path, capsys):
    assert run.main(options(urls, tmp_path / "out")) == 0
    before = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()}
    asked = len(origin.requests)
    assert run.main(options(urls, tmp_path / "out", "--fetch_timeout", "7")) == 0
    assert "is complete" in capsys.readouterr().out
    assert {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()} == before
    assert len(origin.requests) == asked


def test_another_dataset_is_not_overwritten_unasked(urls, tmp_path, capsys):
    assert run.main(options(urls, tmp_path / "out")) == 0
    assert run.main(options(urls, tmp_path / "out", "--encoding", "lab_uint8")) == 2
    assert "--encoding lab_float32, not lab_uint8" in capsys.readouterr().err
    assert run.main(options(urls, tmp_path / "out", "--encoding", "lab_uint8", "--overwrite")) == 0
    assert json.loads((tmp_path / "out" / "dataset.json").read_text())["encoding"] == "lab_uint8"


def test_what_an_interrupted_run_left_is_cleared(urls, tmp_path):
    output = tmp_path / "out"
    (output / f"beam-temp-lab_images_-{UUID}").mkdir(parents=True)
    (output / f"beam-temp-lab_images_-{UUID}" / "half").write_text("half")
    (output / "beam-temp-metadata-00000").mkdir()
    (output / "beam-temp-metadata-00000" / "half").write_text("half")
    for name in ("lab_images_00000-of-00009.tfrecord", "metadata-00000-of-00009.parquet"):
        (output / name).write_text("old")
    (output / "lab_images_00000-of-00009.tfrecord.idx").write_text("old")
    (output / "notes.txt").write_text("mine")
    (output / "run.json").write_text('{"started_by": "beam_pipeline 0.1"}')
    assert run.main(options(urls, output)) == 0
    assert {path.name for path in output.iterdir()} == {
        *("README.md", "croissant.json", "dataset.json"),
        "failures-00000-of-00001.jsonl",
        "lab_images_00000-of-00001.tfrecord",
        "lab_images_00000-of-00001.tfrecord.idx",
        "metadata-00000-of-00001.parquet",
        "metrics.json",
        "notes.txt",
    }


@pytest.mark.parametrize("mode", ["multi_threading", "multi_processing"])
def test_several_workers(urls, tmp_path, mode):
    done = command(
        *options(
            urls,
            tmp_path / "out",
            "--direct_num_workers",
            "2",
            "--direct_running_mode",
            mode,
            "--verbose",
        )
    )
    assert done.returncode == 0, done.stderr
    assert "5 examples, 1 failure\n" in done.stdout
    # The name of each image is reported here, whichever process made it.
    assert all(f"good/{index}.jpg" in done.stderr for index in range(5))


def test_worker_processes_keep_what_they_know_of_sites(origin, tmp_path):
    urls = tmp_path / "urls.txt"
    urls.write_text("".join(f"{origin.url(f'good/{index}.jpg')}\n" for index in range(24)))
    workers = ("--direct_num_workers", "2", "--direct_running_mode", "multi_processing")
    parts = ("--urls_per_commit", "6", "--obey_robots_txt")
    done = command(*options(str(urls), tmp_path / "out", *workers, *parts))
    assert done.returncode == 0, done.stderr
    assert "24 examples" in done.stdout
    # Each process asks once, and none again for another part.
    assert 1 <= origin.paths.count("/robots.txt") <= 2


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_a_run_with_one_line(origin, tmp_path, number):
    (tmp_path / "urls.txt").write_text(
        "".join(f"{origin.url(f'hang/{index}')}\n" for index in range(50))
    )
    arguments = options(str(tmp_path / "urls.txt"), tmp_path / "out", "--fetch_timeout", "3600")
    process = subprocess.Popen(
        [sys.executable, "-m", "beam_pipeline.run", *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    deadline = time.monotonic() + 60
    while not origin.requests and time.monotonic() < deadline:
        time.sleep(0.1)
    assert origin.requests
    # A terminal sends the signal to the command and all its descendants.
    os.killpg(process.pid, number)
    output, errors = process.communicate(timeout=30)
    assert process.returncode == 128 + number
    assert output == ""
    assert len(errors.splitlines()) == 1 and "Interrupted" in errors


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_permission_is_refused(urls, tmp_path, capsys):
    (tmp_path / "locked").mkdir(mode=0o500)
    assert run.main(options(urls, tmp_path / "locked" / "out")) == 2
    assert "permission" in capsys.readouterr().err


def read_json(folder: Path) -> dict:
    return json.loads((folder / "dataset.json").read_text())


@pytest.mark.parametrize("commit", ["3", "100"])
def test_repeated_bodies_are_reported_and_can_be_excluded(origin, tmp_path, capsys, commit):
    same = [origin.url(f"good/same.jpg?{index}") for index in range(7)]
    others = [origin.url(f"good/{index}.jpg") for index in range(4)]
    (tmp_path / "urls.txt").write_text("\n".join(same[:4] + others + same[4:]) + "\n")
    assert (
        run.main(options(str(tmp_path / "urls.txt"), tmp_path / "out", "--urls_per_commit", commit))
        == 0
    )
    digest = hashlib.sha256(image("same.jpg")).hexdigest()
    [repeated] = read_json(tmp_path / "out")["repeated_content"]
    assert repeated == {"sha256": digest, "count": 7, "url": min(same)}

    (tmp_path / "placeholders.txt").write_text(f"# placeholders\n{digest.upper()}  same.jpg\n")
    exclude = ["--exclude_sha256", str(tmp_path / "placeholders.txt")]
    assert run.main(options(str(tmp_path / "urls.txt"), tmp_path / "more", *exclude)) == 0
    counts = read_json(tmp_path / "more")["counts"]
    assert (counts["examples"], counts["failures_by_reason"]) == (4, {"placeholder": 7})


@pytest.mark.parametrize("content", [None, "abc\n", "\xff"])
def test_a_broken_exclusion_list_is_refused(urls, tmp_path, capsys, content):
    if content is not None:
        (tmp_path / "list").write_bytes(content.encode("latin-1"))
    assert (
        run.main(options(urls, tmp_path / "out", "--exclude_sha256", str(tmp_path / "list"))) == 2
    )
    [line] = capsys.readouterr().err.splitlines()
    assert "--exclude_sha256" in line


def test_failures_are_a_list_to_try_again(origin, tmp_path, capsys):
    paths = ["flaky/3/503/a.jpg", "flaky/3/500/b.jpg", "status/404/c.jpg", "good/d.jpg"]
    (tmp_path / "urls.txt").write_text(
        "".join(f"id_{path[-5]}\t{origin.url(path)}\n" for path in paths)
    )
    assert run.main(options(str(tmp_path / "urls.txt"), tmp_path / "first")) == 0
    assert read_json(tmp_path / "first")["counts"]["failures_by_reason"] == {
        "http_404": 1,
        "http_500": 1,
        "http_503": 1,
    }
    again = [
        *options(str(tmp_path / "first" / "failures-*.jsonl"), tmp_path / "second"),
        "--retry_reasons",
        "http_503, dns",
    ]
    asked = len(origin.requests)
    assert run.main(again) == 0
    assert len(origin.requests) == asked + 1
    counts = read_json(tmp_path / "second")["counts"]
    assert (counts["lines"], counts["ignored"], counts["examples"], counts["failures"]) == (
        3,
        2,
        1,
        0,
    )
    [example] = tf.data.TFRecordDataset(
        str(next((tmp_path / "second").glob("lab_images_*.tfrecord")))
    )
    assert tf.train.Example.FromString(example.numpy()).features.feature[
        "image_id"
    ].bytes_list.value == [b"id_a"]

    assert (
        run.main(
            [*options(str(tmp_path / "urls.txt"), tmp_path / "third"), "--retry_reasons", "dns"]
        )
        == 2
    )
    assert "--retry_reasons dns. Its reasons are none: it is not" in capsys.readouterr().err
    failures = str(tmp_path / "first" / "failures-*.jsonl")
    assert run.main([*options(failures, tmp_path / "third"), "--retry_reasons", "http503"]) == 2
    assert "Its reasons are http_404, http_500, http_503" in capsys.readouterr().err


def test_too_many_failures_are_no_dataset(urls, tmp_path, capsys, origin):
    arguments = options(urls, tmp_path / "out")
    assert run.main([*arguments, "--max_failed_fraction", "0.1"]) == 1
    [line] = capsys.readouterr().err.splitlines()
    assert "1 images failed and 5 did not" in line and "1 http_404" in line
    assert not (tmp_path / "out" / "dataset.json").exists()
    asked = len(origin.requests)
    assert run.main([*arguments, "--max_failed_fraction", "0.2"]) == 0
    assert len(origin.requests) == asked
    assert read_json(tmp_path / "out")["counts"]["examples"] == 5


def test_a_full_disk_is_named_and_costs_no_commit(origin, tmp_path):
    """A limit on the file size simulates the full disk: same error, from the same call."""
    lines = [f"{origin.url(f'good/{index}.jpg')}\n" for index in range(30)]
    (tmp_path / "urls.txt").write_text("".join(lines))
    arguments = options(
        str(tmp_path / "urls.txt"),
        tmp_path / "out",
        "--urls_per_commit",
        "20",
        "--image_size",
        "64",
    )
    # The first commit has few images and stays within the limit; the second exceeds it.
    first = "".join(
        [*lines[:2], *[origin.url(f"status/404/{index}\n") for index in range(18)], *lines[2:]]
    )
    (tmp_path / "urls.txt").write_text(first)
    limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, resource.RLIM_INFINITY))  # noqa: E731
    full = command(*arguments, preexec_fn=limit)
    assert full.returncode == 1
    [line] = full.stderr.splitlines()
    assert "File too large" in line and str(tmp_path / "out") in line
    [shard] = (tmp_path / "out").glob("lab_images_*.tfrecord")
    assert (
        shard.name.startswith("lab_images_00000-")
        and (tmp_path / "out" / "commit-00000.json").exists()
    )
    written = shard.stat().st_mtime_ns

    second = command(*arguments)
    assert second.returncode == 0
    assert read_json(tmp_path / "out")["counts"]["examples"] == 30
    assert shard.stat().st_mtime_ns == written


def test_an_original_that_cannot_be_kept_is_named(urls, tmp_path, capsys, monkeypatch):
    write_bytes = filesystem.write_bytes

    def break_originals(path, data, **keywords):
        if "originals" in path:
            raise OSError(28, "No space left on device", path)
        write_bytes(path, data, **keywords)

    monkeypatch.setattr(filesystem, "write_bytes", break_originals)
    assert (
        run.main(options(urls, tmp_path / "out", "--original_dir", str(tmp_path / "originals")))
        == 1
    )
    [line] = capsys.readouterr().err.splitlines()
    assert "No space left on device" in line and "originals" in line


def test_what_the_messages_advise_helps(origin, tmp_path, capsys):
    urls = tmp_path / "urls.txt"
    urls.write_text(origin.url("flaky/3/503/a.jpg") + "\n")
    arguments = options(str(urls), tmp_path / "out")
    assert run.main(arguments) == 1
    assert "give --overwrite to retry" in capsys.readouterr().err
    assert run.main([*arguments, "--overwrite"]) == 0
    assert read_json(tmp_path / "out")["counts"]["examples"] == 1


def test_a_changed_list_is_begun_anew_if_asked_for(origin, tmp_path, capsys, monkeypatch):
    urls = tmp_path / "urls.txt"
    urls.write_text("".join(origin.url(f"good/{index}.jpg\n") for index in range(6)))
    arguments = options(str(urls), tmp_path / "out", "--urls_per_commit", "2")
    build = pipeline.build

    def break_third(graph, config, commit, *others):
        if commit.index == 2:
            raise RuntimeError("the machine dies")
        return build(graph, config, commit, *others)

    with monkeypatch.context() as patch:
        patch.setattr(pipeline, "build", break_third)
        assert run.main(arguments) == 1
    urls.write_text("".join(origin.url(f"good/{index}.jpg\n") for index in range(3, 8)))
    assert run.main(arguments) == 2
    assert "--overwrite starts again" in capsys.readouterr().err
    assert run.main([*arguments, "--overwrite"]) == 0
    assert read_json(tmp_path / "out")["counts"]["examples"] == 5


def test_many_commits_leave_nothing_open(origin, tmp_path):
    urls = tmp_path / "urls.txt"
    urls.write_text("".join(origin.url(f"good/{index}.jpg\n") for index in range(20)))
    assert run.main(options(str(urls), tmp_path / "first")) == 0
    before = len(os.listdir("/proc/self/fd")), threading.active_count()
    assert run.main(options(str(urls), tmp_path / "out", "--urls_per_commit", "2")) == 0
    after = len(os.listdir("/proc/self/fd")), threading.active_count()
    assert after[0] <= before[0] + 3 and after[1] <= before[1] + 1


# A command that does not wait for its job.
LEAVING = ("--runner", "PortableRunner", "--job_endpoint", "localhost:9", "--no_wait_until_finish")


def test_commits_are_not_mixed_with_a_job_of_the_complete_list(urls, tmp_path, capsys):
    """A list with completed commits is refused by a command that submits one job and leaves."""
    output = tmp_path / "out"
    config, _, _ = command_line.parse(options(urls, output))
    output.mkdir()
    (output / "failures-00000-00000-of-00001.jsonl").write_text("{}")
    failed = [Shard("failures-00000-00000-of-00001.jsonl", 1, 2)]
    counts = {"lines": 1, "failures/fetch/dns": 1}
    commit_manifest.finalize_commit(
        config, 0, False, "", commit_manifest.NO_DIGESTS, counts, [], [], failed, [], [], []
    )
    assert run.main([*options(urls, output), *LEAVING]) == 2
    assert "first parts" in capsys.readouterr().err


def test_commits_need_a_command_that_waits(urls, tmp_path, capsys):
    flags = ["--urls_per_commit", "5", *LEAVING]
    assert run.main([*options(urls, tmp_path / "out"), *flags]) == 2
    assert "--urls_per_commit" in capsys.readouterr().err


def test_parts_are_for_the_launcher_of_a_template(urls, tmp_path, capsys):
    assert run.main([*options(urls, tmp_path / "out"), "--parts"]) == 2
    assert "Flex Template, which gives --template_location: leave it out" in capsys.readouterr().err


def test_parts_need_a_launcher_that_waits(tmp_path, capsys):
    engine = ["--runner", "PortableRunner", "--job_endpoint", "localhost:1"]
    arguments = [*options("https://a.test/urls.txt", tmp_path / "out"), *engine]
    arguments += ["--template_location", str(tmp_path / "template"), "--no_wait_until_finish"]
    assert run.main([*arguments, "--parts"]) == 2
    assert "leave out --no_wait_until_finish" in capsys.readouterr().err


@pytest.mark.parametrize("offset", [0, 0.5, 1.5])
def test_of_two_runs_into_one_folder_one_is_refused_and_the_dataset_is_complete(
    origin, tmp_path, offset
):
    urls = tmp_path / "urls.txt"
    urls.write_text("".join(origin.url(f"delay/0.02/{index}.jpg\n") for index in range(150)))
    arguments = options(
        str(urls), tmp_path / "out", "--urls_per_commit", "50", "--fetch_concurrency", "2"
    )
    pipes: dict[str, Any] = {
        "stdout": subprocess.PIPE,
        "stderr": subprocess.PIPE,
        "text": True,
        "cwd": ROOT,
    }
    processes = []
    for _ in range(2):
        processes.append(
            subprocess.Popen([sys.executable, "-m", "beam_pipeline.run", *arguments], **pipes)
        )
        time.sleep(offset)
    errors = [process.communicate(timeout=120)[1] for process in processes]
    assert sorted(process.returncode for process in processes) == [0, 2]
    refused = next(index for index, process in enumerate(processes) if process.returncode == 2)
    [line] = errors[refused].splitlines()
    assert f"in use by another run (process {processes[1 - refused].pid} on " in line
    assert validate.main([str(tmp_path / "out")]) == 0
    assert not (tmp_path / "out" / "run.lock").exists()


def test_what_excludes_bodies_may_not_change_halfway(origin, tmp_path, capsys, monkeypatch):
    urls, excluded = tmp_path / "urls.txt", tmp_path / "excluded.txt"
    urls.write_text("".join(origin.url(f"good/{index}.jpg\n") for index in range(6)))
    digests = [hashlib.sha256(image(f"{index}.jpg")).hexdigest() for index in range(6)]
    excluded.write_text(digests[0] + "\n")
    arguments = options(
        str(urls), tmp_path / "out", "--urls_per_commit", "2", "--exclude_sha256", str(excluded)
    )
    build = pipeline.build

    def break_second(graph, config, commit, *others):
        if commit.index == 1:
            excluded.write_text("\n".join(digests))
            raise RuntimeError("the machine dies")
        return build(graph, config, commit, *others)

    with monkeypatch.context() as patch:
        patch.setattr(pipeline, "build", break_second)
        assert run.main(arguments) == 1
    assert run.main(arguments) == 2
    assert (
        "another --exclude_sha256, or with one whose content has changed" in capsys.readouterr().err
    )
    excluded.write_text("# the same again\n" + digests[0] + "\n")
    assert run.main(arguments) == 0
    assert read_json(tmp_path / "out")["counts"]["failures_by_reason"] == {"placeholder": 1}
    excluded.write_text(digests[1])
    assert run.main(arguments) == 2


def test_a_complete_dataset_stays_complete_with_commits_of_another_size(
    tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(inception_resnet_v2, "Network", FakeNetwork)
    monkeypatch.setattr(inception_resnet_v2, "_networks", {})
    for index in range(3):
        (tmp_path / f"{index}.jpg").write_bytes(image(f"{index}.jpg"))
    arguments = [
        "--images",
        str(tmp_path / "*.jpg"),
        "--output",
        str(tmp_path / "out"),
        "--checkpoint",
        "untrained",
    ]
    assert run.main([*arguments, "--image_size", "32"]) == 0
    assert read_json(tmp_path / "out")["options"]["statistics"]
    assert run.main([*arguments, "--urls_per_commit", "2"]) == 0
    printed = capsys.readouterr().out
    assert "is complete" in printed and "3 images: 0 ignored" in printed
    assert run.main([*arguments, "--image_size", "64"]) == 2


class FakeNetwork:
    def __init__(self, *unused_arguments):
        pass

    def embed(self, pixels):
        return np.zeros((len(pixels), 1001), np.float32)


def test_nothing_is_left_in_the_folder_of_temporary_files(urls, tmp_path):
    (tmp_path / "temporary").mkdir()
    environment = {**os.environ, "TMPDIR": str(tmp_path / "temporary")}
    assert command(*options(urls, tmp_path / "out"), env=environment).returncode == 0
    assert (
        command(*options(urls, tmp_path / "out", "--image_size", "7"), env=environment).returncode
        == 2
    )
    assert list((tmp_path / "temporary").iterdir()) == []


class PixelNetwork:
    """Returns pixels of its input as the embedding."""

    def __init__(self, *unused_arguments):
        pass

    def embed(self, pixels):
        return np.asarray(pixels).reshape(len(pixels), -1)[:, ::100][:, :1001].astype(np.float32)


def test_the_embeddings_do_not_depend_on_the_size_of_what_is_stored(tmp_path, monkeypatch):
    monkeypatch.setattr(inception_resnet_v2, "Network", PixelNetwork)
    for index in range(3):
        (tmp_path / f"{index}.jpg").write_bytes(image(f"{index}.jpg"))
    resized = str(tmp_path / "resized")
    arguments = [
        "--images",
        str(tmp_path / "*.jpg"),
        "--checkpoint",
        "untrained",
        "--report=false",
        "--resized_dir",
        resized,
    ]
    embeddings = []
    # The second run with 64 pixels could read resized images, which the network must not see.
    for folder, size in (("a", "299"), ("b", "64"), ("c", "64")):
        monkeypatch.setattr(inception_resnet_v2, "_networks", {})
        assert run.main([*arguments, "--image_size", size, "--output", str(tmp_path / folder)]) == 0
        examples = dataset.examples(tmp_path / folder)
        assert examples[0]["image_l"].shape == (int(size), int(size), 1)
        embeddings.append(
            {example["image_name"]: example["image_embedding"] for example in examples}
        )
    for name, embedding in embeddings[0].items():
        assert embedding.std() > 10
        for other in embeddings[1:]:
            np.testing.assert_array_equal(embedding, other[name])
