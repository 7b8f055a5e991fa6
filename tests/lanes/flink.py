"""Tests on a real Flink cluster on this machine.

The cluster is a JobManager and two TaskManagers, each of which starts a worker process.
"""

from __future__ import annotations

import base64
import collections
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from buckets import s3, upload, use
from datasets import (
    CONTAINER_OPTIONS,
    OPTIONS,
    Dataset,
    assert_full_shards,
    assert_has_containers,
    assert_right,
    assert_same,
    job,
    read_dataset,
    run_job,
)
from programs import BEAM, CACHE, descendants, free_port, program, wait_for_port

FLINK = CACHE / "flink-1.19.3" / "deps"
TASK_MANAGERS = 2
BOOT = CACHE / f"boot-{BEAM}" / "container"
JOB_SERVER = CACHE / "flink-job-server-2.62.0.jar"

SCRIPT = Path(__file__).parents[2] / "examples" / "flink.sh"


class Cluster(NamedTuple):
    """A running cluster.

    Attributes:
      port: The port of the REST API.
      pid: The process id of the script that runs the cluster.
    """

    port: int
    pid: int

    def ask(self, path: str) -> Any:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=10) as answer:
            return json.load(answer)


def settings(folder: Path) -> dict[str, str]:
    """Return the settings of the script for a cluster on free ports."""
    return {
        "FLINK_HOME": str(FLINK),
        "BOOT": str(BOOT),
        "JOB_SERVER": str(JOB_SERVER),
        "PYTHON": os.path.relpath(sys.executable),
        "TASK_MANAGERS": str(TASK_MANAGERS),
        "REST_PORT": str(free_port()),
        "RPC_PORT": str(free_port()),
        "WORK_DIR": str(folder),
    }


@contextlib.contextmanager
def start_cluster(
    folder: Path, task_managers: int = TASK_MANAGERS, **extra: str
) -> Iterator[Cluster]:
    """Run a cluster; at the end, all of its processes are killed at once.

    Args:
      folder: A new folder for its files.
      task_managers: Number of TaskManagers.
      extra: Further environment variables of its workers.
    """
    folder.mkdir()
    variables = {**settings(folder), "TASK_MANAGERS": str(task_managers), **extra}
    log = folder / "script.log"
    with program([SCRIPT, "start"], log, None, **variables) as process:
        deadline = time.monotonic() + 90
        while "Flink's page" not in log.read_text():
            assert process.poll() is None and time.monotonic() < deadline, log.read_text()[-3000:]
            time.sleep(0.2)
        yield Cluster(int(variables["REST_PORT"]), process.pid)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with start_cluster(tmp_path_factory.mktemp("flink") / "cluster") as started:
        yield started


def test_the_script_of_the_docs_reads_containers(containers, container_reference, tmp_path):
    (tmp_path / "work").mkdir()
    command = [SCRIPT, "run", "--images", containers, "--output", tmp_path / "dataset"]
    done = subprocess.run(
        [*map(str, command), *CONTAINER_OPTIONS],
        env={**os.environ, **settings(tmp_path / "work"), "TASK_MANAGERS": "1"},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    assert_has_containers(read_dataset(tmp_path / "dataset"), container_reference)


def engine(cluster: Cluster, parallelism: int, pool: int | None = None) -> list[str | Path]:
    """Return the options of the engine; `pool` is the port of a worker pool."""
    workers = (
        ("--environment_type", "EXTERNAL", "--environment_config", f"localhost:{pool}")
        if pool
        else ("--environment_type", "PROCESS", "--environment_option", f"process_command={BOOT}")
    )
    return [
        *("--runner", "FlinkRunner", "--flink_master", f"localhost:{cluster.port}"),
        *("--flink_version", "1.19", "--flink_job_server_jar", JOB_SERVER),
        *("--parallelism", str(parallelism), *workers),
    ]


@pytest.fixture(scope="module")
def made(
    cluster: Cluster, url_list: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Dataset, str]:
    """Return the dataset that all slots of the cluster make of the list, and the job's id."""
    begun = time.time() * 1000
    output = tmp_path_factory.mktemp("made") / "dataset"
    command = [*engine(cluster, 4), "--input", url_list, "--output", output, *OPTIONS]
    done = run_job([*command, "--statistics=true"])
    assert done.returncode == 0, done.stderr
    return read_dataset(output), find_job(cluster, begun)


def find_job(cluster: Cluster, begun: float) -> str:
    """Return the id of the only job that has begun since a time in milliseconds."""
    [found] = [
        each for each in cluster.ask("/jobs/overview")["jobs"] if each["start-time"] >= begun
    ]
    return str(found["jid"])


def test_the_dataset_is_the_same(made, reference):
    dataset, _ = made
    assert_right(dataset)
    assert_same(dataset, reference)
    assert dataset.statistics, "nothing was learnt"
    assert_full_shards(dataset, slots=4)


def test_metrics_are_shown_in_flinks_own_page(cluster, made):
    dataset, number = made
    page = cluster.ask(f"/jobs/{number}/accumulators")["user-task-accumulators"]
    [containers] = [
        json.loads(accumulator["value"])
        for accumulator in page
        if accumulator["name"] == "__metricscontainers"
    ]
    counters: collections.Counter[str] = collections.Counter()
    for info in containers["metrics"]["attempted"]:
        if info["urn"] == "beam:metric:user:sum_int64:v1":
            counters[f"{info['labels']['NAMESPACE']}/{info['labels']['NAME']}"] += read_varint(
                base64.b64decode(info["payload"])
            )
    failures = dataset.description["counts"]["failures_by_reason"]
    examples = dataset.description["counts"]["examples"]
    assert {name: counters[f"failures/{name}"] for name in failures} == failures
    assert counters["encode/images"] == examples
    assert counters["decode/images"] == examples + sum(
        stage == "decode" for stage, _ in dataset.failures.values()
    )
    assert counters["fetch/bytes"] > 0 and counters["decode/microseconds"] > 0


def read_varint(data: bytes) -> int:
    return sum((byte & 0x7F) << (7 * index) for index, byte in enumerate(data))


def test_workers_that_are_killed_cost_nothing(cluster, url_list, reference, tmp_path):
    begun = time.time() * 1000
    with job(
        [*engine(cluster, 2), "--input", url_list, "--output", tmp_path / "dataset", *OPTIONS]
    ) as process:
        wait_for_record(tmp_path / "dataset", process)
        for worker in find_workers(cluster):
            os.kill(worker, signal.SIGKILL)
        _, errors = process.communicate(timeout=600)
    assert process.returncode == 0, errors
    exceptions = cluster.ask(f"/jobs/{find_job(cluster, begun)}/exceptions")
    assert exceptions["exceptionHistory"]["entries"], "the job has not noticed"
    made = read_dataset(tmp_path / "dataset")
    assert_right(made)
    assert_same(made, reference)


def find_workers(cluster: Cluster) -> Iterator[int]:
    for process in descendants(cluster.pid):
        with contextlib.suppress(OSError):
            if "sdk_worker_main" in Path(f"/proc/{process}/cmdline").read_text():
                yield process


def wait_for_record(output: Path, process: subprocess.Popen[str]) -> None:
    while not any(path.stat().st_size for path in output.glob("beam-temp-lab_images*/*")):
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)


def test_a_cluster_that_dies_costs_one_part(url_list, reference, photographs, tmp_path):
    """Kill the complete cluster in the second of three parts."""
    output = tmp_path / "dataset"
    options = [
        *("--input", url_list, "--output", output, *OPTIONS),
        *("--urls_per_commit", "20"),
    ]
    with (
        start_cluster(tmp_path / "first", task_managers=1) as first,
        job([*engine(first, 2), *options]) as process,
    ):
        while not (output / "commit-00000.json").exists():
            assert process.poll() is None, process.communicate()
            time.sleep(0.05)
        asked = len(photographs.requests)
        while len(photographs.requests) == asked:
            assert process.poll() is None, process.communicate()
            time.sleep(0.05)
        commands = [Path(f"/proc/{child}/cmdline") for child in descendants(process.pid)]
        assert sum(b"-jar" in command.read_bytes() for command in commands) == 1
        stop(first)
        shown, errors = process.communicate(timeout=300)
    assert process.returncode == 1, errors
    assert "part 2: 20 images after 20 complete ones" in shown
    assert not (output / "commit-00001.json").exists()

    with start_cluster(tmp_path / "second", task_managers=1) as second:
        done = run_job([*engine(second, 2), *options])
    assert done.returncode == 0, done.stderr
    assert "resuming after 20 images" in done.stdout
    made = read_dataset(output)
    parts = {file["name"].split("_")[-1][:5] for file in made.description["files"]}
    assert parts == {"00000", "00001", "00002"}
    assert_same(made, reference)


def stop(cluster: Cluster) -> None:
    """Kill all processes of a cluster."""
    for process in [cluster.pid, *descendants(cluster.pid)]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)


def test_workers_of_a_pool_with_all_files_on_s3(url_list, untrained_checkpoint, embedded, tmp_path):
    python = str(Path(sys.executable).parent)
    port, log = free_port(), tmp_path / "pool.log"
    pool: list[str | Path] = [
        sys.executable,
        Path(__file__).with_name("worker_pool.py"),
        str(port),
    ]
    with contextlib.ExitStack() as stack:
        bucket = stack.enter_context(use(s3(tmp_path)))
        path = f"{python}:{os.environ['PATH']}"
        process = stack.enter_context(program(pool, log, None, PATH=path))
        alone = stack.enter_context(start_cluster(tmp_path / "cluster", task_managers=1))
        wait_for_port(port, process, log)
        output = f"{bucket}/dataset"
        options = [
            *("--input", upload(url_list, f"{bucket}/urls.txt"), "--output", output, *OPTIONS),
            *("--checkpoint", upload(untrained_checkpoint, f"{bucket}/untrained.ckpt")),
        ]
        done = run_job([*engine(alone, 2, pool=port), *options])
        assert done.returncode == 0, done.stderr
        made = read_dataset(output)
        assert_right(made)
        assert_same(made, embedded)


def test_an_interrupted_command_can_be_given_again(cluster, url_list, reference, tmp_path):
    begun = time.time() * 1000
    command = [*engine(cluster, 2), "--input", url_list, "--output", tmp_path / "dataset", *OPTIONS]
    with job(command) as process:
        wait_for_record(tmp_path / "dataset", process)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "The job may still run" in errors
    cancel(cluster, find_job(cluster, begun))
    done = run_job(command)
    assert done.returncode == 0, done.stderr
    made = read_dataset(tmp_path / "dataset")
    assert_right(made)
    assert_same(made, reference)


def cancel(cluster: Cluster, number: str) -> None:
    """Cancel a job as Flink's page does, and wait until it has ended."""
    url = f"http://127.0.0.1:{cluster.port}/jobs/{number}?mode=cancel"
    urllib.request.urlopen(urllib.request.Request(url, method="PATCH"), timeout=10).close()
    while cluster.ask(f"/jobs/{number}")["state"] not in ("CANCELED", "FAILED", "FINISHED"):
        time.sleep(0.2)
