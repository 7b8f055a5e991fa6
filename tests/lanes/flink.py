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
    OPTIONS,
    assert_makes_the_same,
    assert_reads_containers,
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


def test_the_script_of_the_docs_makes_the_dataset(url_list, reference, tmp_path):
    (tmp_path / "work").mkdir()
    command = [SCRIPT, "run", "--input", url_list, "--output", tmp_path / "dataset", *OPTIONS]
    done = subprocess.run(
        list(map(str, command)),
        env={**os.environ, **settings(tmp_path / "work"), "TASK_MANAGERS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    made = read_dataset(tmp_path / "dataset")
    assert_right(made)
    assert_same(made, reference)


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


@pytest.mark.parametrize("parallelism", [2, 4])
def test_the_dataset_is_the_same(cluster, url_list, reference, tmp_path, parallelism):
    assert_makes_the_same(
        engine(cluster, parallelism), url_list, tmp_path / "dataset", reference, slots=parallelism
    )


def test_containers(cluster, containers, container_reference, tmp_path):
    assert_reads_containers(
        engine(cluster, 2), containers, tmp_path / "dataset", container_reference
    )


def test_metrics_are_shown_in_flinks_own_page(cluster, url_list, reference, tmp_path):
    done = run_job(
        [
            *engine(cluster, 2),
            "--input",
            url_list,
            "--output",
            tmp_path / "dataset",
            *OPTIONS,
            "--checkpoint",
            "none",
        ]
    )
    assert done.returncode == 0, done.stderr
    last = max(cluster.ask("/jobs/overview")["jobs"], key=lambda job: job["start-time"])
    page = cluster.ask(f"/jobs/{last['jid']}/accumulators")["user-task-accumulators"]
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
    failures = reference.description["counts"]["failures_by_reason"]
    examples = reference.description["counts"]["examples"]
    assert {name: counters[f"failures/{name}"] for name in failures} == failures
    assert counters["encode/images"] == examples
    assert counters["decode/images"] == examples + sum(
        stage == "decode" for stage, _ in reference.failures.values()
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
    [last] = [each for each in cluster.ask("/jobs/overview")["jobs"] if each["start-time"] >= begun]
    assert cluster.ask(f"/jobs/{last['jid']}/exceptions")["exceptionHistory"]["entries"], (
        "the job has not noticed"
    )
    made = read_dataset(tmp_path / "dataset")
    assert_right(made)
    assert_same(made, reference)


def find_workers(cluster: Cluster) -> Iterator[int]:
    for process in descendants(cluster.pid):
        with contextlib.suppress(FileNotFoundError):
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
        *("--checkpoint", "none", "--urls_per_commit", "20"),
    ]
    with (
        start_cluster(tmp_path / "first") as first,
        job([*engine(first, 2), *options]) as process,
    ):
        while not (output / "commit-00000.json").exists():
            assert process.poll() is None, process.communicate()
            time.sleep(0.05)
        asked = len(photographs.requests)
        while len(photographs.requests) == asked:
            assert process.poll() is None, process.communicate()
            time.sleep(0.05)
        stop(first)
        shown, errors = process.communicate(timeout=300)
    assert process.returncode == 1, errors
    assert "part 2: 20 images after 20 complete ones" in shown
    assert not (output / "commit-00001.json").exists()

    with start_cluster(tmp_path / "second") as second:
        done = run_job([*engine(second, 2), *options])
    assert done.returncode == 0, done.stderr
    assert "resuming after 20 images" in done.stdout
    made = read_dataset(output)
    parts = {file["name"].split("_")[-1][:5] for file in made.description["files"]}
    assert parts == {"00000", "00001", "00002"}
    assert_same(made, reference, has_embeddings=False)


def stop(cluster: Cluster) -> None:
    """Kill all processes of a cluster."""
    for process in [cluster.pid, *descendants(cluster.pid)]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)


def test_workers_of_a_pool_with_all_files_on_s3(
    url_list, untrained_checkpoint, reference, tmp_path
):
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
        assert_same(made, reference)
