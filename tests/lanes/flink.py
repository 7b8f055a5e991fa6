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
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from datasets import (
    OPTIONS,
    assert_makes_the_same,
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

# The values that Flink's own scripts derive from the configuration. Without the second, the heap
# size limits the buffers too.
MEMORY = ("-Xmx640m", "-XX:MaxDirectMemorySize=1g")

CONFIGURATION = """\
jobmanager.rpc.address: 127.0.0.1
jobmanager.rpc.port: {rpc_port}
jobmanager.bind-host: 127.0.0.1
rest.address: 127.0.0.1
rest.bind-address: 127.0.0.1
rest.port: {rest_port}
taskmanager.host: 127.0.0.1
taskmanager.bind-host: 127.0.0.1
taskmanager.numberOfTaskSlots: 2
taskmanager.cpu.cores: 2
taskmanager.memory.framework.heap.size: 128m
taskmanager.memory.framework.off-heap.size: 128m
taskmanager.memory.task.heap.size: 512m
taskmanager.memory.task.off-heap.size: 128m
taskmanager.memory.managed.size: 256m
taskmanager.memory.network.min: 512m
taskmanager.memory.network.max: 512m
taskmanager.memory.jvm-metaspace.size: 256m
taskmanager.memory.jvm-overhead.min: 192m
taskmanager.memory.jvm-overhead.max: 192m
taskmanager.network.sort-shuffle.min-buffers: 64
task.cancellation.timeout: 15000
restart-strategy.type: fixed-delay
restart-strategy.fixed-delay.attempts: 20
restart-strategy.fixed-delay.delay: 5 s
heartbeat.interval: 2000
heartbeat.timeout: 10000
io.tmp.dirs: {folder}
"""


class Cluster(NamedTuple):
    """A running cluster.

    Attributes:
      port: The port of the REST API.
      managers: The process ids of the programs that restart the TaskManagers.
    """

    port: int
    managers: list[int]

    def ask(self, path: str) -> Any:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=10) as answer:
            return json.load(answer)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    folder = tmp_path_factory.mktemp("flink")
    rpc_port, rest_port = free_port(), free_port()
    (folder / "config.yaml").write_text(
        CONFIGURATION.format(rpc_port=rpc_port, rest_port=rest_port, folder=folder)
    )

    def java(main: str, *memory: str) -> list[str | Path]:
        options = [*memory, "-Dlog4j2.level=WARN", "-cp", f"{FLINK}/lib/*"]
        return ["java", *options, f"org.apache.flink.runtime.{main}", "--configDir", folder]

    log = folder / "log"
    # Beam's boot program runs the `python` of its environment.
    environment = {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "RUN_PYTHON_SDK_IN_DEFAULT_ENVIRONMENT": "1",
    }
    with contextlib.ExitStack() as stack:
        master = stack.enter_context(
            program(java("entrypoint.StandaloneSessionClusterEntrypoint", "-Xmx512m"), log)
        )
        wait_for_port(rest_port, master, log)
        # A TaskManager that ends is restarted, as by Kubernetes or YARN.
        command = [
            "sh",
            "-c",
            'while :; do "$@"; done',
            "sh",
            *java("taskexecutor.TaskManagerRunner", *MEMORY),
        ]
        managers = []
        for index in range(TASK_MANAGERS):
            # Beam's boot program leaves a file in its working directory.
            (folder / str(index)).mkdir()
            managers.append(
                stack.enter_context(program(command, log, folder / str(index), **environment)).pid
            )
        started = Cluster(rest_port, managers)
        deadline = time.monotonic() + 60
        while True:
            with contextlib.suppress(urllib.error.HTTPError):  # it responds with 503 at first
                if len(started.ask("/taskmanagers")["taskmanagers"]) == TASK_MANAGERS:
                    break
            assert time.monotonic() < deadline, log.read_text()[-3000:]
            time.sleep(0.2)
        yield started


def engine(cluster: Cluster, parallelism: int) -> list[str | Path]:
    return [
        *(
            "--runner",
            "FlinkRunner",
            "--flink_master",
            f"localhost:{cluster.port}",
            "--flink_version",
            "1.19",
        ),
        *("--flink_job_server_jar", JOB_SERVER, "--parallelism", str(parallelism)),
        *("--environment_type", "PROCESS", "--environment_option", f"process_command={BOOT}"),
    ]


@pytest.mark.parametrize("parallelism", [2, 4])
def test_the_dataset_is_the_same(cluster, url_list, reference, tmp_path, parallelism):
    assert_makes_the_same(
        engine(cluster, parallelism), url_list, tmp_path / "dataset", reference, slots=parallelism
    )


def test_metrics_stand_in_flinks_own_page(cluster, url_list, reference, tmp_path):
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
    assert counters["encode_example/images"] == examples
    assert counters["decode_image/images"] == examples + sum(
        stage == "decode" for stage, _ in reference.failures.values()
    )
    assert counters["fetch/bytes"] > 0 and counters["decode_image/microseconds"] > 0


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
    for manager in cluster.managers:
        for process in descendants(manager):
            with contextlib.suppress(FileNotFoundError):
                if "sdk_worker_main" in Path(f"/proc/{process}/cmdline").read_text():
                    yield process


def wait_for_record(output: Path, process: subprocess.Popen[str]) -> None:
    while not any(path.stat().st_size for path in output.glob("beam-temp-lab_images*/*")):
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
