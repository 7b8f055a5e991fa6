import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import apache_beam as beam
import pytest
from apache_beam.options.pipeline_options import PipelineOptions
from origin import peak

from beam_pipeline.launch import runner_options
from beam_pipeline.launch.worker_pool import WorkerPool

ROOT = Path(__file__).parents[2]


def write_identity(number: int, folder: str) -> None:
    with (Path(folder) / f"{number}.{os.getpid()}").open("w") as file:
        file.write(os.environ.get("MARK", ""))


def processes_of(pool: WorkerPool, folder: Path, workers: int) -> set[int]:
    """Return the processes that run a graph."""
    options = PipelineOptions(
        ["--direct_num_workers", str(workers), "--direct_running_mode", "multi_processing"]
    )
    runner_options.use_pool(options)
    with beam.Pipeline(runner=pool.make_runner(), options=options) as graph:
        _ = (
            graph
            | beam.Create(range(40))
            | beam.Reshuffle()
            | beam.Map(write_identity, str(folder))
        )
    names = [path.name for path in folder.iterdir()]
    assert sorted(int(name.split(".")[0]) for name in names) == list(range(40))
    for path in folder.iterdir():
        path.unlink()
    return {int(name.split(".")[1]) for name in names}


def is_running(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rsplit(")")[-1].split()[0] != "Z"
    except OSError:
        return False


def test_all_graphs_run_in_the_same_processes(tmp_path):
    with WorkerPool(2) as pool:
        first, second, third = (processes_of(pool, tmp_path, 2) for _ in range(3))
        assert len(first | second | third) == 2
        assert os.getpid() not in first
        assert all(is_running(process) for process in first)
    assert not any(is_running(process) for process in first)


def test_an_error_of_a_worker_is_raised_and_the_processes_serve_on(tmp_path):
    with WorkerPool(1) as pool:
        with pytest.raises(RuntimeError, match=r"FileNotFoundError.*absent"):
            processes_of(pool, tmp_path / "absent", 1)
        assert len(processes_of(pool, tmp_path, 1)) == 1


def start(origin, tmp_path, *arguments: str) -> subprocess.Popen[str]:
    """Start a run with two worker processes that waits for its last images."""
    lines = [origin.url(f"good/{index}.jpg") for index in range(30)]
    lines += [origin.url(f"hang/{index}.jpg") for index in range(30)]
    (tmp_path / "urls.txt").write_text("\n".join(lines))
    command = [sys.executable, "-m", "beam_pipeline.run", "--input", str(tmp_path / "urls.txt")]
    command += ["--output", str(tmp_path / "out"), "--checkpoint", "none", "--image_size", "16"]
    command += ["--allow_private_addresses", "--fetch_timeout", "3600", "--urls_per_commit", "20"]
    command += ["--direct_num_workers", "2", "--direct_running_mode", "multi_processing"]
    return subprocess.Popen(
        [*command, *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def wait_for_workers(process: int, origin) -> list[int]:
    """Return the worker processes once they fetch images that never arrive."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        children = [
            int(child)
            for path in Path(f"/proc/{process}/task").glob("*/children")
            for child in path.read_text().split()
        ]
        workers = [
            child
            for child in children
            if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes()
        ]
        if len(workers) == 2 and any("hang" in path for path in origin.paths):
            return workers
        time.sleep(0.1)
    raise AssertionError("the workers have not started")


def test_a_worker_that_is_killed_ends_the_run_with_one_line(origin, tmp_path):
    process = start(origin, tmp_path)
    workers = wait_for_workers(process.pid, origin)
    os.kill(workers[0], signal.SIGKILL)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 1
    [line] = [line for line in errors.splitlines() if "worker process" in line]
    assert "signal 9, as when memory is short. Run the same command again" in line
    assert not any(is_running(worker) for worker in workers)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_workers_end_with_the_command(origin, tmp_path, number):
    process = start(origin, tmp_path)
    workers = wait_for_workers(process.pid, origin)
    if number == signal.SIGINT:
        os.killpg(process.pid, number)  # as a terminal does
    else:
        process.kill()
    process.communicate(timeout=30)
    deadline = time.monotonic() + 10
    while any(is_running(worker) for worker in workers) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(is_running(worker) for worker in workers)


def test_a_run_reports_its_processes_and_shares_the_limits(origin, tmp_path):
    (tmp_path / "urls.txt").write_text(
        "\n".join(origin.url(f"delay/0.3/good/{index}.jpg") for index in range(30))
    )
    done = subprocess.run(
        [
            *[sys.executable, "-m", "beam_pipeline.run", "--input", str(tmp_path / "urls.txt")],
            *["--output", str(tmp_path / "out"), "--checkpoint", "none", "--image_size", "16"],
            *["--allow_private_addresses", "--host_concurrency", "4", "--direct_num_workers", "2"],
            *["--direct_running_mode", "multi_processing", "--report=false"],
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("2 worker processes on this machine\n")
    options = json.loads((tmp_path / "out" / "dataset.json").read_text())["options"]
    assert options["host_concurrency"] == 4
    assert len(origin.requests) == 30
    assert peak(origin.requests) <= 4
