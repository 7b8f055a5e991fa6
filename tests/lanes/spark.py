"""Tests on Spark: the one inside Beam's job server, and a standalone cluster, on this machine."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from buckets import s3, upload, use
from datasets import (
    NETWORK,
    OPTIONS,
    assert_makes_the_same,
    assert_reads_containers,
    assert_right,
    assert_same,
    read_dataset,
    run_job,
)
from programs import BEAM, CACHE, free_port, program, wait_for_port

JOB_SERVER = CACHE / "spark-job-server-2.62.0.jar"
SPARK = CACHE / "spark-3.5.7" / "deps"
BOOT = CACHE / f"boot-{BEAM}" / "container"
WORKERS = 2


def engine(master: str, *options: str | Path) -> list[str | Path]:
    return [
        *("--runner", "SparkRunner", "--spark_master_url", master),
        *("--spark_job_server_jar", JOB_SERVER, *options),
    ]


def test_the_dataset_is_the_same(url_list, embedded, tmp_path):
    assert_makes_the_same(engine("local[2]"), url_list, tmp_path / "dataset", embedded, 2, *NETWORK)


def test_containers(containers, container_reference, tmp_path):
    assert_reads_containers(
        engine("local[2]"), containers, tmp_path / "dataset", container_reference
    )


@contextlib.contextmanager
def start_cluster(folder: Path) -> Iterator[str]:
    """Run a master and workers of one processor each; yield the URL of the master."""
    port, log = free_port(), folder / "master.log"
    python = str(Path(sys.executable).parent)
    variables = {
        "SPARK_HOME": str(SPARK),
        "SPARK_LOCAL_IP": "127.0.0.1",
        "SPARK_WORKER_DIR": str(folder / "work"),
        # The workers' Python is the `python` that is first in PATH.
        "PATH": f"{python}:{os.environ['PATH']}",
        "RUN_PYTHON_SDK_IN_DEFAULT_ENVIRONMENT": "1",
    }

    def start(
        name: str, *arguments: str
    ) -> contextlib.AbstractContextManager[subprocess.Popen[bytes]]:
        command: list[str | Path] = [
            SPARK / "bin" / "spark-class",
            f"org.apache.spark.deploy.{name}",
            *arguments,
        ]
        ports: list[str | Path] = ["--host", "127.0.0.1", "--webui-port", str(free_port())]
        return program([*command, *ports], log, folder, **variables)

    with contextlib.ExitStack() as stack:
        master = stack.enter_context(start("master.Master", "--port", str(port)))
        wait_for_port(port, master, log)
        url = f"spark://127.0.0.1:{port}"
        for _ in range(WORKERS):
            stack.enter_context(start("worker.Worker", "--cores", "1", "--memory", "1g", url))
        deadline = time.monotonic() + 60
        while log.read_text().count("Successfully registered with master") < WORKERS:
            assert time.monotonic() < deadline, log.read_text()[-3000:]
            time.sleep(0.2)
        yield url


def test_a_standalone_cluster_with_all_files_on_s3(
    url_list, untrained_checkpoint, embedded, tmp_path
):
    with contextlib.ExitStack() as stack:
        bucket = stack.enter_context(use(s3(tmp_path)))
        output = f"{bucket}/dataset"
        options = [
            *("--input", upload(url_list, f"{bucket}/urls.txt"), "--output", output, *OPTIONS),
            *("--checkpoint", upload(untrained_checkpoint, f"{bucket}/untrained.ckpt")),
        ]
        process = ("--environment_type", "PROCESS", "--environment_option")
        master = stack.enter_context(start_cluster(tmp_path))
        command = [*engine(master, *process, f"process_command={BOOT}"), *options]
        # The driver is in the job server that the command starts.
        done = run_job(command, SPARK_LOCAL_IP="127.0.0.1")
        assert done.returncode == 0, done.stderr
        made = read_dataset(output)
        assert_right(made)
        assert_same(made, embedded)
