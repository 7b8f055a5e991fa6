"""Tests that a run which was killed at any moment and restarted ends with the same result."""

import contextlib
import json
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import tensorflow as tf
from origin import Origin, image

from beam_pipeline import naming, pipeline, run
from beam_pipeline.embedding import inception_resnet_v2
from beam_pipeline.reading import dataset_dir, near_duplicates, validation

ROOT = Path(__file__).parent.parent
KILLS = 4


def options(urls: Path, output: Path, *others: str) -> list[str]:
    fixed = (
        "--checkpoint none --image_size 24 --encoding lab_uint8 --validation_fraction 0.3 "
        "--examples_per_shard 7"
    )
    fixed += f" --original_dir {output}-originals --resized_dir {output}-resized"
    # About a third of the images are less colourful.
    fixed += " --near_duplicates --measures --min_colorfulness 90"
    fixed += " --urls_per_commit 40 --fetch_attempts 1 --allow_private_addresses --report=false"
    return ["--input", str(urls), "--output", str(output), *fixed.split(), *others]


def write_list(origin: Origin, folder: Path, images: int) -> Path:
    rng = random.Random(0)
    lines = ["# a list"]
    for index in range(images):
        path = rng.choice(
            ["good/{}.jpg"] * 6
            + ["delay/0.05/{}.jpg", "status/404/{}.jpg", "html/{}.jpg", "half/{}.jpg"]
        )
        lines.append(f"id{index}\t{origin.url(path.format(index))}")
    # Some lines occur twice, within a commit and across commits.
    lines += rng.choices(lines[1:], k=20)
    urls = folder / "urls.txt"
    urls.write_text("\n".join(lines) + "\n")
    return urls


def contents(
    folder: Path,
) -> tuple[list[tuple[str, str, bytes]], list[str], list[tuple], dict]:
    """Return the content of a dataset: examples with their split, failures, rows, and numbers.

    It does not depend on how the examples are distributed over shards.
    """
    description = json.loads((folder / "dataset.json").read_text())
    opened = dataset_dir.open_dataset_dir(folder)
    assert sorted(path.name for path in folder.iterdir()) == sorted(
        [
            *(*opened.info.file_sizes, *opened.info.index_names, *naming.DESCRIPTIONS),
            *("dataset.json", "metrics.json"),
        ]
    ), "stray files"
    assert validation.check(opened)[0] == []
    examples = []
    for file in description["files"]:
        records = [record.numpy() for record in tf.data.TFRecordDataset(str(folder / file["name"]))]
        assert len(records) == file["examples"] <= 7
        for record in records:
            url = (
                tf.train.Example.FromString(record)
                .features.feature["image_url"]
                .bytes_list.value[0]
                .decode()
            )
            examples.append((url, file["split"], record))
    lines = [
        line
        for file in (*description["failure_files"], *description["filtered_files"])
        for line in (folder / file["name"]).read_text().splitlines()
    ]
    # An original that was kept is decoded without any attempt to fetch it.
    failures = [json.dumps({**json.loads(line), "attempts": 0, "final_url": ""}) for line in lines]
    # Nor has it a final URL; of a resized image, the digest of the body is not known.
    columns = ["name", "url", "id", "class", "split", "original_width", "original_height"]
    rows = [
        tuple(row.values())
        for file in opened.info.metadata_files
        for row in pq.read_table(folder / file.name, columns=columns).to_pylist()
    ]
    clusters = near_duplicates.read_table(str(folder), opened.info).select(["name", "cluster"])
    rows += [tuple(row.values()) for row in clusters.to_pylist()]
    found = {**description["near_duplicates"], "bytes": 0}
    numbers = {name: description[name] for name in ("counts", "measures")}
    return sorted(examples), sorted(failures), sorted(rows, key=repr), {**numbers, "found": found}


def wait_for_lock(folder: Path, process: subprocess.Popen[bytes]) -> None:
    """Wait until a command holds the lock of its folder: it has imported its modules."""
    lock = folder / naming.LOCK
    while not (lock.exists() and str(process.pid) in lock.read_text()):
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)


def test_killed_at_random_moments(origin, tmp_path):
    urls = write_list(origin, tmp_path, 240)
    assert run.main(options(urls, tmp_path / "whole")) == 0
    whole = contents(tmp_path / "whole")
    assert len({url for url, _, _ in whole[0]}) == len(whole[0]) > 60
    assert whole[3]["counts"]["failures_by_reason"]["low_colorfulness"] > 30

    rng = random.Random(1)
    killed = 0
    for _ in range(KILLS + 1):
        process = subprocess.Popen(
            [sys.executable, "-m", "beam_pipeline.run", *options(urls, tmp_path / "killed")],
            cwd=ROOT,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        try:
            if killed < KILLS:
                wait_for_lock(tmp_path / "killed", process)
            # After enough kills the run may complete.
            process.communicate(timeout=rng.uniform(0, 4) if killed < KILLS else None)
            assert process.returncode == 0
            break
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.communicate()
            killed += 1
    assert killed, "the run ended before it could be killed"
    assert contents(tmp_path / "killed") == whole
    for kept in ("originals", "resized"):
        files = [
            {path.name: path.read_bytes() for path in (tmp_path / f"{run}-{kept}").iterdir()}
            for run in ("whole", "killed")
        ]
        assert files[0] == files[1]


def test_a_complete_commit_is_not_made_again(origin, tmp_path, monkeypatch):
    urls = write_list(origin, tmp_path, 120)
    made = []
    build = pipeline.build

    def build_and_break(graph, config, commit, *others):
        made.append(commit.index)
        if commit.index == 2 and made.count(2) == 1:
            raise RuntimeError("the machine dies")
        return build(graph, config, commit, *others)

    monkeypatch.setattr("beam_pipeline.pipeline.build", build_and_break)
    assert run.main(options(urls, tmp_path / "out")) == 1
    before = {
        path.name: path.stat().st_mtime_ns
        for path in (tmp_path / "out").iterdir()
        if path.name.startswith("lab_images")
    }
    assert run.main(options(urls, tmp_path / "out")) == 0
    assert made == [0, 1, 2, 2, 3]
    after = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()}
    assert before and before.items() <= after.items()
    contents(tmp_path / "out")


def test_an_interruption_reports_its_cost_and_the_rerun_where_it_starts(origin, tmp_path):
    urls = tmp_path / "urls.txt"
    good = [origin.url(f"good/{number}.jpg") for number in range(4)]
    urls.write_text("\n".join([*good, *good[:1], origin.url("hang/1"), origin.url("hang/2")]))
    arguments = options(urls, tmp_path / "out", "--urls_per_commit", "5", "--min_colorfulness", "0")
    command = [sys.executable, "-m", "beam_pipeline.run", *arguments]
    process = subprocess.Popen(
        [*command, "--fetch_timeout", "3600"], cwd=ROOT, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 60
    while not any("hang" in path for path in origin.paths) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate()
    assert errors == (
        "beam_pipeline: Interrupted. 5 images are complete; 0 images of the unfinished part will "
        "be processed again. Run the same command again to resume.\n"
    )
    done = subprocess.run(
        [*command, "--fetch_timeout", "1"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert f"resuming after 5 images in {tmp_path / 'out'}\n" in done.stdout
    assert "7 lines: 0 ignored, 1 duplicate, 4 examples, 2 failures" in done.stdout


def test_other_options_are_refused_halfway(origin, tmp_path, capsys, monkeypatch):
    urls = write_list(origin, tmp_path, 100)
    build = pipeline.build

    def break_second(graph, config, commit, *others):
        if commit.index == 1:
            raise RuntimeError("the machine dies")
        return build(graph, config, commit, *others)

    monkeypatch.setattr("beam_pipeline.pipeline.build", break_second)
    assert run.main(options(urls, tmp_path / "out")) == 1
    assert "the machine dies" in capsys.readouterr().err
    assert run.main([*options(urls, tmp_path / "out"), "--resize", "crop"]) == 2
    assert "the beginning of a dataset made with --resize pad, not crop" in capsys.readouterr().err
    urls.write_text("http://127.0.0.1/other.jpg\n" + urls.read_text())
    assert run.main(options(urls, tmp_path / "out")) == 2
    assert "has changed since the run began" in capsys.readouterr().err
    assert np.all([path.exists() for path in (tmp_path / "out").glob("lab_images_00000-*")])


@contextlib.contextmanager
def piping(path: Path) -> Iterator[Path]:
    """Yield the path of a pipe, as the shell's `<(cat list)` does."""
    with subprocess.Popen(["cat", path], stdout=subprocess.PIPE) as cat:
        assert cat.stdout
        yield Path(f"/dev/fd/{cat.stdout.fileno()}")


def test_a_list_from_a_pipe_is_taken_up_again(origin, tmp_path, capsys, monkeypatch):
    urls = write_list(origin, tmp_path, 100)
    assert run.main(options(urls, tmp_path / "whole")) == 0
    build = pipeline.build
    broken: list[bool] = []

    def break_second(graph, config, commit, *others):
        if commit.index == 1 and not broken:
            broken.append(True)
            raise RuntimeError("the machine dies")
        return build(graph, config, commit, *others)

    monkeypatch.setattr("beam_pipeline.pipeline.build", break_second)
    with piping(urls) as pipe:
        assert run.main(options(pipe, tmp_path / "piped")) == 1
        with piping(urls) as other:
            assert other != pipe
            assert run.main(options(other, tmp_path / "piped")) == 0
    assert "resuming after" in capsys.readouterr().out
    assert contents(tmp_path / "piped") == contents(tmp_path / "whole")


def test_several_workers_take_a_list_from_a_pipe(origin, tmp_path):
    urls = write_list(origin, tmp_path, 30)
    workers = ("--direct_num_workers", "2", "--direct_running_mode", "multi_processing")
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "beam_pipeline.run",
            *options(Path("/dev/stdin"), tmp_path / "out", *workers),
        ],
        cwd=ROOT,
        capture_output=True,
        timeout=120,
        input=urls.read_bytes(),
    )
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "out" / "dataset.json").read_text())["counts"]["lines"] == 51


def test_the_network_is_loaded_once_not_once_a_commit(tmp_path, monkeypatch):
    loads = []

    class FakeNetwork:
        def __init__(self, checkpoint, precision, sha256):
            loads.append(checkpoint)

        def embed(self, pixels):
            return np.zeros((len(pixels), 1001), np.float32)

    monkeypatch.setattr(inception_resnet_v2, "Network", FakeNetwork)
    monkeypatch.setattr(inception_resnet_v2, "_networks", {})
    for index in range(6):
        (tmp_path / f"{index}.jpg").write_bytes(image(f"{index}.jpg"))
    arguments = ["--images", str(tmp_path / "*.jpg"), "--output", str(tmp_path / "out")]
    arguments += ["--checkpoint", "untrained", "--urls_per_commit", "2"]
    assert run.main(arguments) == 0
    assert loads == ["untrained"]
    assert len(json.loads((tmp_path / "out" / "dataset.json").read_text())["files"]) == 3
