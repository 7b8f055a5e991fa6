"""Tests of what the S3 adapter relies on in Beam: options without a pipeline, and one client."""

import http.server
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# A process of its own, because pipelines of other tests leave their options in FileSystems.
SCRIPT = """
import json, sys
from apache_beam.io.aws.clients.s3 import boto3_client
from apache_beam.io.aws.s3io import S3IO
from apache_beam.options.pipeline_options import PipelineOptions
from beam_pipeline.storage import any_path, filesystem

def clients():
    options = {"s3_endpoint_url": sys.argv[1]}
    return boto3_client.Client(options).client, S3IO(options=options).client.client

found = [any_path.exists(f"s3://without-options/{name}") for name in ("there", "missing")]
filesystem.FileSystems.set_options(PipelineOptions(["--s3_endpoint_url", f"{sys.argv[1]}/own"]))
found.append(any_path.exists("s3://with-options/there"))
first, second = clients()
print(json.dumps({"found": found, "one client": first is second}))
"""


class Store(http.server.BaseHTTPRequestHandler):
    """A store whose objects are those named `there`."""

    asked: list[str]

    def do_HEAD(self) -> None:
        self.asked.append(self.path)
        self.send_response(200 if self.path.endswith("/there") else 404)
        self.send_header("Content-Length", "0")
        self.send_header("Content-Type", "image/jpeg")
        self.send_header("ETag", '"1"')
        self.send_header("Last-Modified", "Thu, 01 Jan 2026 00:00:00 GMT")
        self.end_headers()

    def log_message(self, *unused: object) -> None:
        pass


@pytest.fixture
def url() -> Iterator[str]:
    Store.asked = []
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Store)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_one_client_serves_a_process_with_and_without_a_pipelines_options(url):
    pytest.importorskip("boto3")
    environment = {
        **os.environ,
        "AWS_ENDPOINT_URL": url,
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
        "NO_PROXY": "127.0.0.1",
    }
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, url],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"found": [True, False, True], "one client": True}
    assert Store.asked == [
        "/without-options/there",
        "/without-options/missing",
        "/own/with-options/there",
    ]
