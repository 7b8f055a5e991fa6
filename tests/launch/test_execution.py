"""Tests of runs on an engine: Beam's own job server, in this process."""

import functools
import json
import os
import re
import time
import types
from collections.abc import Iterator
from typing import Any

import pytest
from apache_beam.runners.portability.local_job_service import LocalJobServicer
from patience import wait_until

from beam_pipeline import dataset, run
from beam_pipeline.launch import execution
from beam_pipeline.launch.progress import Progress
from beam_pipeline.transforms import ticks


class Server(LocalJobServicer):
    """A job server that refuses jobs after the first `accepted` ones."""

    accepted = 100

    def create_beam_job(self, *arguments, **keywords):
        if not self.accepted:
            raise RuntimeError("the cluster is gone")
        self.accepted -= 1
        return super().create_beam_job(*arguments, **keywords)


@pytest.fixture
def server(tmp_path) -> Iterator[tuple[Server, list[str]]]:
    """Yield a job server, and the options that select it."""
    started = Server(str(tmp_path / "staged"))
    endpoint = f"localhost:{started.start_grpc_server()}"
    worker = ("--environment_type", "beam:env:embedded_python:v1")
    yield started, ["--runner", "PortableRunner", "--job_endpoint", endpoint, *worker]
    started.stop()


@pytest.fixture
def arguments(origin, tmp_path) -> list[str]:
    urls = tmp_path / "urls.txt"
    lines = [origin.url(f"good/{index}.jpg") for index in range(8)]
    urls.write_text("\n".join([*lines, origin.url("status/404"), lines[1], lines[0]]) + "\n")
    fixed = "--checkpoint none --image_size 16 --allow_private_addresses --fetch_attempts 1"
    return ["--input", str(urls), "--output", str(tmp_path / "out"), *fixed.split()]


def read_counts(folder) -> dict[str, int]:
    counts = json.loads((folder / "dataset.json").read_text())["counts"]
    return {name: counts[name] for name in ("lines", "duplicates", "examples", "failures")}


WHOLE = {"lines": 11, "duplicates": 2, "examples": 8, "failures": 1}


def test_each_part_is_a_job_and_a_dead_engine_costs_one(
    server, arguments, origin, tmp_path, capsys
):
    started, engine = server
    command = [*arguments, *engine, "--urls_per_commit", "6"]
    started.accepted = 1
    assert run.main(command) == 1
    shown = capsys.readouterr()
    assert "the cluster is gone" in shown.err
    assert "part 1: 6 images after 0 complete ones. If its job or the cluster dies" in shown.out
    assert not (tmp_path / "out" / "dataset.json").exists()
    asked = len(origin.requests)
    started.accepted = 100
    assert run.main(command) == 0
    shown = capsys.readouterr()
    assert "resuming after 6 images" in shown.out
    assert "part 2: 5 images after 6 complete ones" in shown.out
    assert read_counts(tmp_path / "out") == WHOLE
    assert len({example["image_url"] for example in dataset.examples(str(tmp_path / "out"))}) == 8
    assert len(origin.requests) == asked + 3
    names = {name.split("_")[-1][:5] for name in os.listdir(tmp_path / "out") if "lab_" in name}
    assert names == {"00000", "00001"}
    assert not [name for name in os.listdir(tmp_path / "out") if "beam-temp" in name]


def test_a_list_below_the_default_is_one_job_whose_workers_report_progress(
    server, arguments, tmp_path, capsys, monkeypatch
):
    seen: list[bytes] = []
    monkeypatch.setattr(ticks, "WRITE_INTERVAL", -1.0)
    monkeypatch.setattr(ticks.filesystem, "write_bytes", _noting(seen))
    started, engine = server
    started.accepted = 1
    assert run.main([*arguments, *engine]) == 0
    assert read_counts(tmp_path / "out") == WHOLE
    assert (tmp_path / "out" / "lab_images_00000-of-00001.tfrecord").exists()
    assert "part 1" not in capsys.readouterr().out
    last = json.loads(seen[-1])
    assert last["examples"] + sum(last["failures"].values()) == 9
    assert last["failures"] == {"http_404": 1}
    assert {"decode", "encode"} <= set(last["microseconds"])


def test_the_progress_line_of_a_resumed_run(
    server, arguments, origin, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(ticks, "WRITE_INTERVAL", -1.0)
    monkeypatch.setattr(execution, "Progress", functools.partial(Progress, interval=0.01))
    lines = [origin.url("status/404"), *(origin.url(f"good/{index}.jpg") for index in range(6))]
    lines.append(origin.url("good/7.jpg"))
    (tmp_path / "urls.txt").write_text("\n".join(lines) + "\n")
    started, engine = server
    command = [*arguments, *engine, "--urls_per_commit", "6"]
    started.accepted = 1
    assert run.main(command) == 1
    capsys.readouterr()
    started.accepted = 100
    assert run.main(command) == 0
    shown = capsys.readouterr().err
    assert re.search(r"^[78] of 8 images \(\d+%\), \S+ images/s, 1 failed", shown, re.M), shown


def _noting(seen: list[bytes]):
    write = ticks.filesystem.write_bytes

    def note(path: str, data: bytes, *arguments, **keywords) -> None:
        if "beam-temp-progress" in path:
            seen.append(data)
        write(path, data, *arguments, **keywords)

    return note


def test_the_list_is_counted_once_its_first_part_is_known(monkeypatch):
    events: list[str] = []
    config: Any = None
    progress: Any = types.SimpleNamespace(total=None)

    def count(unused_config):
        events.append("counted")
        return 7

    def plan():
        time.sleep(0.2)
        events.append("planned")
        yield from ("first", "second")

    monkeypatch.setattr(execution.listing, "count_images", count)
    parts = execution._counting_beside(plan(), config, progress)
    assert next(parts) == "first"
    assert wait_until(lambda: progress.total == 7)
    assert list(parts) == ["second"]
    assert events == ["planned", "counted"]
