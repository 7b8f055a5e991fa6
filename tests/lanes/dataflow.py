"""Tests of Dataflow: Beam submits a job to a stand-in for the service, and the job is run.

The service itself is not available without Google. The tests run what it would start on its workers
on Beam's own runner, with only the staged files.
"""

from __future__ import annotations

import contextlib
import http.server
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from apache_beam.portability import common_urns
from apache_beam.portability.api import beam_runner_api_pb2
from datasets import NETWORK, OPTIONS, assert_right, assert_same, read_dataset, run_job
from test_pipeline import find_shuffled_pixels

ROOT = Path(__file__).parents[2]

# A worker takes the staged files and runs the graph.
WORKER = """
import sys
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.portability.api import beam_runner_api_pb2
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
import beam_pipeline
assert beam_pipeline.__file__.startswith(sys.argv[2]), beam_pipeline.__file__
graph = beam_runner_api_pb2.Pipeline.FromString(open(sys.argv[1], "rb").read())
for environment in graph.components.environments.values():
    environment.urn, environment.payload = "beam:env:embedded_python:v1", b""
    del environment.dependencies[:]
FnApiRunner().run_via_runner_api(graph, PipelineOptions()).wait_until_finish()
"""


class Service(http.server.BaseHTTPRequestHandler):
    """Accepts jobs and reports their states.

    Attributes:
      jobs: The jobs that have arrived.
      run: Runs a job when it arrives, and returns its final state.
    """

    jobs: list[dict[str, Any]]
    states: dict[str, str]
    run: Callable[[dict[str, Any]], str]

    def do_POST(self) -> None:
        job = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.jobs.append(job)
        name = f"job-{len(self.jobs)}"
        self.states[name] = "JOB_STATE_RUNNING"
        threading.Thread(target=self.complete, args=[name, job], daemon=True).start()
        self.answer(self.describe(name))

    def do_GET(self) -> None:
        name = self.path.partition("/jobs/")[2].split("/")[0].split("?")[0]
        self.answer(
            {} if name not in self.states or "messages" in self.path else self.describe(name)
        )

    def complete(self, name: str, job: dict[str, Any]) -> None:
        self.states[name] = self.run(job)

    def describe(self, name: str) -> dict[str, Any]:
        return {"id": name, "projectId": "project", "currentState": self.states[name]}

    def answer(self, content: dict[str, Any]) -> None:
        body = json.dumps(content).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *unused_arguments: object) -> None:
        pass


@contextlib.contextmanager
def serve(
    run: Callable[[dict[str, Any]], str],
) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Yield the URL of a stand-in for the service, and the list of jobs that arrive."""
    jobs: list[dict[str, Any]] = []
    attributes = {"jobs": jobs, "states": {}, "run": staticmethod(run)}
    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), type("Service", (Service,), attributes)
    )
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://localhost:{server.server_port}", jobs
    server.shutdown()
    server.server_close()


@pytest.fixture
def service() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Return a stand-in that reports that jobs are done without running them."""
    with serve(lambda job: "JOB_STATE_DONE") as served:
        yield served


class Workers:
    """Runs the graph of a job with its staged package only."""

    def __init__(self, folder: Path):
        self._folder, self._library = folder, folder / "library"

    def run(self, job: dict[str, Any]) -> None:
        environment = job["environment"]
        options = environment["sdkPipelineOptions"]["options"]
        [pool] = environment["workerPools"]
        staged = {package["name"]: package["location"] for package in pool["packages"]}
        if not self._library.exists():
            pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps"]
            command: list[str | Path] = [*pip, "--no-build-isolation", "--target", self._library]
            subprocess.run([*command, staged["workflow.tar.gz"]], check=True)
        run = [sys.executable, "-c", WORKER, options["pipelineUrl"], str(self._library)]
        environ = {**os.environ, "PYTHONPATH": str(self._library)}
        done = subprocess.run(
            run, cwd=self._folder, env=environ, timeout=600, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr[-3000:]


def submit(
    endpoint: str, url_list: Path, folder: Path, *flags: str
) -> subprocess.CompletedProcess[str]:
    (folder / "staged").mkdir(exist_ok=True)
    return run_job(
        [
            *(
                "--runner",
                "DataflowRunner",
                "--dataflow_endpoint",
                endpoint,
                "--no_auth",
                "--project",
                "project",
            ),
            *(
                "--region",
                "europe-west1",
                "--temp_location",
                folder / "temp",
                "--staging_location",
                folder / "staged",
            ),
            *(
                "--setup_file",
                "./setup.py",
                "--machine_type",
                "n2-standard-8",
                "--max_num_workers",
                "30",
            ),
            *("--sdk_container_image", "registry/beam_pipeline"),
            *("--input", url_list, "--output", folder / "dataset"),
            *OPTIONS,
            *flags,
        ],
        cwd=ROOT,
        NO_GCE_CHECK="true",
    )


def test_the_job_that_arrives_makes_the_dataset(service, url_list, embedded, tmp_path):
    endpoint, jobs = service
    submitted = submit(endpoint, url_list, tmp_path, *NETWORK)
    # The stand-in reports that the job is done, but has not run it.
    assert submitted.returncode == 1
    assert "has ended without" in submitted.stderr
    assert "/jobs/europe-west1/job-1?project=project" in submitted.stdout
    [job] = jobs
    environment = job["environment"]
    options = environment["sdkPipelineOptions"]["options"]
    [pool] = environment["workerPools"]
    assert "no_use_multiple_sdk_containers" in environment["experiments"]  # one network per machine
    assert options["save_main_session"] is False
    assert pool["machineType"] == "n2-standard-8"
    assert pool["autoscalingSettings"]["maxNumWorkers"] == 30
    assert [image["containerImage"] for image in pool["sdkHarnessContainerImages"]] == [
        "registry/beam_pipeline"
    ]
    graph_file = Path(options["pipelineUrl"])

    components = beam_runner_api_pb2.Pipeline.FromString(graph_file.read_bytes()).components
    # Steps with different environments could not be fused.
    [worker] = components.environments.values()
    assert worker.resource_hints[common_urns.resource_hints.MIN_RAM_BYTES.urn] == b"4000000000"
    steps = {step.unique_name for step in components.transforms.values()}
    assert {
        "ReadRefs",
        "DropDuplicates",
        "FetchImages",
        "DecodeImages",
        "EmbedImages",
        "WriteTrainExamples",
        "FinalizeCommit",
    } <= steps
    assert find_shuffled_pixels(components)[1] == []

    Workers(tmp_path).run(job)
    made = read_dataset(tmp_path / "dataset")
    assert_right(made)
    assert_same(made, embedded)


def test_a_template_is_not_waited_for(service, url_list, tmp_path):
    endpoint, jobs = service
    submitted = submit(
        endpoint, url_list, tmp_path, "--template_location", str(tmp_path / "staged" / "template")
    )
    assert submitted.returncode == 0, submitted.stderr
    assert "The job is submitted" in submitted.stdout
    assert not jobs
    assert json.loads((tmp_path / "staged" / "template").read_text())["environment"]


def test_a_job_that_fails_costs_one_part(url_list, reference, tmp_path):
    workers = Workers(tmp_path)

    def run(job: dict[str, Any]) -> str:
        if len(jobs) == 2:  # the second part, at the first attempt
            return "JOB_STATE_FAILED"
        workers.run(job)
        return "JOB_STATE_DONE"

    with serve(run) as (endpoint, jobs):
        flags = ("--urls_per_commit", "26", "--job_name", "photographs")
        first = submit(endpoint, url_list, tmp_path, *flags)
        assert first.returncode == 1
        assert "part 2: 26 images after 26 complete ones" in first.stdout
        second = submit(endpoint, url_list, tmp_path, *flags)
        assert second.returncode == 0, second.stderr
        assert "resuming after 26 images" in second.stdout
        parts = [1, 2, 2, 3]
        assert [job["name"] for job in jobs] == [f"photographs-part-{part}" for part in parts]
    made = read_dataset(tmp_path / "dataset")
    assert_right(made)
    assert_same(made, reference)


def test_the_launcher_of_a_template_submits_part_after_part(url_list, reference, tmp_path):
    workers = Workers(tmp_path)

    def run(job: dict[str, Any]) -> str:
        workers.run(job)
        return "JOB_STATE_DONE"

    template = tmp_path / "staged" / "template"
    with serve(run) as (endpoint, jobs):
        flags = ("--urls_per_commit", "26", "--template_location", str(template))
        done = submit(
            endpoint, url_list, tmp_path, *flags, "--parts=true", "--job_name", "photographs"
        )
        assert done.returncode == 0, done.stderr
        names = [job["name"] for job in jobs]
        assert names == ["photographs-part-1", "photographs-part-2"]
    assert not (tmp_path / "dataset" / "dataset.json").exists()
    # The service starts the job of the last part from the file that the launcher leaves.
    workers.run(json.loads(template.read_text()))
    made = read_dataset(tmp_path / "dataset")
    assert_right(made)
    assert_same(made, reference)
