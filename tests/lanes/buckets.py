"""Object stores for the tests: emulators of gs:// and s3:// on loopback."""

from __future__ import annotations

import contextlib
import http.server
import json
import sys
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from programs import free_port, program, wait_for_port

from beam_pipeline.storage import filesystem
from beam_pipeline.storage import s3 as s3_clients


class Tokens(http.server.BaseHTTPRequestHandler):
    """Returns a token for every request."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        kind = "urn:ietf:params:oauth:token-type:access_token"
        token = {
            "access_token": "token",
            "issued_token_type": kind,
            "token_type": "Bearer",
            "expires_in": 3600,
        }
        body = json.dumps(token).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *unused_arguments: object) -> None:
        pass


@contextlib.contextmanager
def credentials(folder: Path) -> Iterator[Path]:
    """Yield the file of a federated account.

    Without credentials, the client looks for a Google machine for half a minute.
    """
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Tokens)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    (folder / "subject").write_text("someone")
    account = {
        "type": "external_account",
        "audience": "anyone",
        "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
        "token_url": f"http://127.0.0.1:{server.server_port}/token",
        "credential_source": {"file": str(folder / "subject")},
    }
    (folder / "account.json").write_text(json.dumps(account))
    yield folder / "account.json"
    server.shutdown()
    server.server_close()


@contextlib.contextmanager
def gcs(folder: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield the URL of an empty bucket, and the environment variables for its clients."""
    port, log = free_port(), folder / "log"
    command = [
        sys.executable,
        "-m",
        "gcp_storage_emulator",
        "start",
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
        "--in-memory",
    ]
    with (
        credentials(folder) as account,
        program([*command, "--default-bucket", "bucket"], log) as server,
    ):
        wait_for_port(port, server, log)
        environment = {
            "GOOGLE_APPLICATION_CREDENTIALS": str(account),
            "GOOGLE_CLOUD_PROJECT": "project",
        }
        yield "gs://bucket", {"STORAGE_EMULATOR_HOST": f"http://127.0.0.1:{port}", **environment}


@contextlib.contextmanager
def s3(folder: Path) -> Iterator[tuple[str, dict[str, str]]]:
    port, log = free_port(), folder / "log"
    with program(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)], log
    ) as server:
        wait_for_port(port, server, log)
        urllib.request.urlopen(
            urllib.request.Request(f"http://127.0.0.1:{port}/bucket", method="PUT"), timeout=10
        ).close()
        environment = {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
            "AWS_DEFAULT_REGION": "us-east-1",
        }
        yield (
            "s3://bucket",
            {**environment, "AWS_ACCESS_KEY_ID": "id", "AWS_SECRET_ACCESS_KEY": "secret"},
        )


@contextlib.contextmanager
def use(store: contextlib.AbstractContextManager[tuple[str, dict[str, str]]]) -> Iterator[str]:
    """Yield the URL of an empty bucket, for this process and those that it starts."""
    with pytest.MonkeyPatch.context() as patch, store as (url, environment):
        for name, value in environment.items():
            patch.setenv(name, value)
        s3_clients._client.cache_clear()  # which may know an emulator that has ended
        yield url


def upload(path: Path, url: str) -> str:
    filesystem.write_bytes(url, path.read_bytes())
    return url
