"""Tests of the checkpoint cache.

A checkpoint is downloaded once, is downloaded again when it is replaced, and is kept only if it is
valid. An interrupted download leaves nothing.
"""

from __future__ import annotations

import functools
import gzip
import hashlib
import http.server
import io
import os
import signal
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from store import PREFIX

from beam_pipeline.config import UsageError
from beam_pipeline.embedding import checkpoint_sources, checkpoints

ROOT = Path(__file__).parents[2]
NAME = "InceptionResnetV2/weights"


def write_checkpoint(path: Path, value: float, version: int = 1) -> Path:
    """Write a checkpoint with the only variable of the tests' network, of two numbers."""
    path.parent.mkdir(parents=True, exist_ok=True)
    data = [np.full(2, value, np.float32)]
    if version == 1:
        tf.raw_ops.Save(filename=str(path), tensor_names=[NAME], data=data)
    else:
        tf.raw_ops.SaveV2(
            prefix=str(path), tensor_names=[NAME], shape_and_slices=[""], tensors=data
        )
    return path


def write_archive(path: Path, value: float) -> Path:
    checkpoint = write_checkpoint(path.parent / "unpacked" / "model.ckpt", value)
    with tarfile.open(path, "w:gz") as members:
        members.add(checkpoint, f"models/{checkpoint.name}")
    return path


def sha256_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def value_of(checkpoint: str, sha256: str | None = None) -> float:
    [weights] = checkpoints.read_weights(checkpoint, sha256)
    return float(weights[0])


def replace(path: Path, value: float) -> None:
    write_archive(path, value) if path.name.endswith("gz") else write_checkpoint(path, value)
    os.utime(path, (1e9 + value, 1e9 + value))


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setattr(checkpoints, "expected_variables", lambda: {NAME: [2]})
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "beam_pipeline"


def kept_in(cache: Path) -> set[str]:
    """Return the names of the files in the cache, without the lock, which is empty."""
    return {path.name for path in cache.iterdir()} - {"lock"}


class Server:
    """A server of a folder.

    Attributes:
      statuses: The statuses of the responses so far.
      answer: A status, a body and a Content-Length to respond with instead of a file, or None.
      has_validators: Whether responses say when a file was changed.
      pause: The event that the server waits for before it ends such a response.
    """

    def __init__(self, folder: Path):
        self.folder, self.has_validators = folder, True
        self.statuses: list[int] = []
        self.answer: tuple[int, bytes, int] | None = None
        self.pause = threading.Event()
        self.pause.set()
        server = self

        class Handler(http.server.SimpleHTTPRequestHandler):
            def do_GET(self) -> None:
                if server.answer is None:
                    super().do_GET()
                    return
                status, body, length = server.answer
                self.send_response(status)
                self.send_header("Content-Length", str(length))
                self.end_headers()
                self.wfile.write(body)
                self.wfile.flush()
                server.pause.wait(60)

            def send_header(self, keyword: str, value: str) -> None:
                if keyword != "Last-Modified" or server.has_validators:
                    super().send_header(keyword, value)

            def send_response(self, code: int, message: str | None = None) -> None:
                server.statuses.append(int(code))
                super().send_response(code, message)

            def log_message(self, *unused: Any) -> None:
                pass

        handler = functools.partial(Handler, directory=str(folder))
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def server(tmp_path) -> Iterator[Server]:
    (tmp_path / "served").mkdir()
    server = Server(tmp_path / "served")
    yield server
    server.close()


@pytest.mark.parametrize(
    "name", ["model.tar.gz", "model.tgz", "model.ckpt", "model.tar.gz?X-Amz-Signature=a/b.ckpt"]
)
def test_a_url_is_downloaded_once(server, cache, name):
    replace(server.folder / name.partition("?")[0], 1)
    url = f"{server.url}/{name}"
    sha256 = checkpoints.verify(url)
    assert checkpoints.verify(url) == sha256
    assert server.statuses == [200, 304]
    # Workers send no request.
    assert value_of(url, sha256) == 1
    assert server.statuses == [200, 304]
    assert len(kept_in(cache)) == 2 and sha256 in kept_in(cache)


@pytest.mark.parametrize(
    ("name", "has_validators"),
    [("model.tar.gz", True), ("model.ckpt", True), ("model.tar.gz", False)],
)
def test_a_file_that_was_replaced_is_noticed(server, name, has_validators):
    server.has_validators = has_validators
    replace(server.folder / name, 1)
    url = f"{server.url}/{name}"
    first = checkpoints.verify(url)
    replace(server.folder / name, 2)
    if not has_validators:  # then the length differs
        with open(server.folder / name, "ab") as file:
            file.write(bytes(1000))
    second = checkpoints.verify(url)
    assert first != second
    assert value_of(url, second) == 2
    # A run that was started with the first file continues with it.
    assert value_of(url, first) == 1


@pytest.mark.parametrize("scheme", ["", PREFIX], ids=["disk", "store"])
@pytest.mark.parametrize("name", ["model.tar.gz", "model.ckpt"])
def test_a_file_on_a_disk_or_store_that_was_replaced_is_noticed(tmp_path, scheme, name):
    replace(tmp_path / name, 1)
    checkpoint = f"{scheme}{tmp_path / name}"
    first = checkpoints.verify(checkpoint)
    assert checkpoints.verify(checkpoint) == first
    replace(tmp_path / name, 2)
    second = checkpoints.verify(checkpoint)
    assert first != second
    assert value_of(checkpoint, second) == value_of(checkpoint) == 2


def test_a_v2_prefix_on_a_store_is_copied(tmp_path, cache):
    prefix = write_checkpoint(tmp_path / "bucket" / "model.ckpt", 3, version=2)
    sha256 = checkpoints.verify(f"{PREFIX}{prefix}")
    assert sha256 == checkpoints.verify(str(prefix))
    assert value_of(f"{PREFIX}{prefix}", sha256) == 3
    with pytest.raises(UsageError, match=r"nothing\.ckpt: there is no such file;"):
        checkpoints.verify(f"{PREFIX}{tmp_path}/nothing.ckpt")


@pytest.mark.parametrize(
    "answer", [(404, b"", 0), (403, b"expired", 7), (503, b"", 0), None], ids=str
)
def test_the_copy_is_used_while_the_server_is_away(server, caplog, answer):
    replace(server.folder / "model.tar.gz", 1)
    url = f"{server.url}/model.tar.gz"
    sha256 = checkpoints.verify(url)
    server.answer = answer
    if answer is None:
        server.close()
    assert checkpoints.verify(url) == sha256
    assert "cannot be reached" in caplog.text and "the copy in" in caplog.text


HTML = b"<!DOCTYPE html><title>Sign in</title>"


@pytest.mark.parametrize("name", ["model.tar.gz", "model.ckpt"])
@pytest.mark.parametrize(
    "body",
    [HTML, gzip.compress(HTML), b"", b"\x1f\x8b"],
    ids=["page", "compressed page", "nothing", "cut"],
)
def test_what_is_no_checkpoint_is_not_kept(server, cache, name, body):
    replace(server.folder / name, 1)
    server.answer = (200, body, len(body))
    url = f"{server.url}/{name}"
    with pytest.raises(UsageError, match=f"^--checkpoint {url}: [^\n]*; give an [^\n]*$"):
        checkpoints.verify(url)
    assert kept_in(cache) == set()
    server.answer = None
    assert value_of(url, checkpoints.verify(url)) == 1


def test_the_checkpoint_of_another_network_is_not_kept(server, cache, monkeypatch):
    replace(server.folder / "model.ckpt", 1)
    monkeypatch.setattr(checkpoints, "expected_variables", lambda: {"other": [2]})
    with pytest.raises(UsageError, match="of another network, without the variable other;"):
        checkpoints.verify(f"{server.url}/model.ckpt")
    assert kept_in(cache) == set()


@pytest.mark.parametrize("path", ["missing.tar.gz", "missing.ckpt", "half.tar.gz"])
def test_what_cannot_be_downloaded_leaves_no_trace(server, cache, path):
    if path == "half.tar.gz":
        server.answer = (200, b"\x1f\x8b half", 1000)
    with pytest.raises(
        UsageError, match=f"{path}: the server (responds with status 404|sent 7 of 1000 bytes)"
    ):
        checkpoints.verify(f"{server.url}/{path}")
    assert kept_in(cache) == set()


def make_archive(path: Path, *members: tuple[str, Any]) -> str:
    """Return an archive of files; a number as the content stands for that many zeros."""
    with tarfile.open(path, "w:gz") as archive:
        for name, content in members:
            member = tarfile.TarInfo(name)
            data = bytes(content) if isinstance(content, int) else content
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return str(path)


@pytest.mark.parametrize(
    "names",
    [[], ["readme"], ["a.ckpt", "b.ckpt"], ["a.ckpt.index"], ["a.ckpt.data-00000-of-00001"]],
)
def test_an_archive_holds_one_checkpoint(tmp_path, cache, names):
    path = make_archive(tmp_path / "a.tar.gz", *[(name, b"x") for name in names])
    with pytest.raises(UsageError, match="it holds no complete checkpoint, or several;"):
        checkpoints.verify(path)
    assert kept_in(cache) == set()


def test_an_archive_writes_nowhere_else(tmp_path, cache):
    content = write_checkpoint(tmp_path / "model.ckpt", 5).read_bytes()
    path = make_archive(tmp_path / "a.tar.gz", ("../../../escaped.ckpt", content))
    assert value_of(path, checkpoints.verify(path)) == 5
    assert [file.name for file in cache.glob("*/*")] == ["escaped.ckpt"]
    assert not list(tmp_path.glob("escaped*"))


@pytest.mark.parametrize("name", ["model.ckpt", "padding"])
def test_what_unpacks_to_too_much_is_refused(tmp_path, cache, monkeypatch, name):
    monkeypatch.setattr(checkpoint_sources, "MAX_BYTES", 1 << 20)
    content = write_checkpoint(tmp_path / "model.ckpt", 1).read_bytes()
    path = make_archive(tmp_path / "a.tar.gz", (name, 3 << 20), ("other.ckpt", content))
    assert os.path.getsize(path) < 1 << 16
    with pytest.raises(UsageError, match="it is larger than"):
        checkpoints.verify(path)
    assert kept_in(cache) == set()


def test_a_sparse_file_takes_no_disk(tmp_path, cache, monkeypatch):
    monkeypatch.setattr(checkpoint_sources, "MAX_BYTES", 1 << 20)
    member = tarfile.TarInfo("model.ckpt")
    member.pax_headers = {
        "GNU.sparse.major": "0",
        "GNU.sparse.minor": "1",
        "GNU.sparse.size": str(1 << 40),
    }
    member.pax_headers |= {"GNU.sparse.map": f"{(1 << 40) - 1},1", "GNU.sparse.numblocks": "1"}
    member.size = 1
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz", format=tarfile.PAX_FORMAT) as archive:
        archive.addfile(member, io.BytesIO(b"x"))
    with pytest.raises(UsageError, match="it is larger than"):
        checkpoints.verify(str(tmp_path / "a.tar.gz"))
    assert kept_in(cache) == set()


@pytest.mark.parametrize("name", ["model.tar.gz", "model.ckpt"])
@pytest.mark.parametrize("is_announced", [True, False])
def test_a_download_is_bounded(server, cache, monkeypatch, name, is_announced):
    monkeypatch.setattr(checkpoint_sources, "MAX_BYTES", 1000)
    server.answer = (200, b"x" if is_announced else bytes(5000), 1 << 40 if is_announced else 5000)
    with pytest.raises(UsageError, match="it is larger than"):
        checkpoints.verify(f"{server.url}/{name}")
    assert kept_in(cache) == set()


@pytest.mark.parametrize("name", ["model.tar.gz", "model.ckpt"])
def test_the_sha256_is_that_of_the_file_that_is_named(server, cache, name):
    path, url = server.folder / name, f"{server.url}/{name}"
    replace(path, 1)
    wanted = sha256_of(path)
    with pytest.raises(
        UsageError, match=f"{url}: its sha256 is {wanted}, but --checkpoint_sha256 is {'f' * 64};"
    ):
        checkpoints.verify(url, "F" * 64)
    assert kept_in(cache) == set()
    sha256 = checkpoints.verify(url, wanted.upper())
    with pytest.raises(
        UsageError, match=f"its sha256 is {wanted}, but --checkpoint_sha256 is {'0' * 64};"
    ):
        checkpoints.verify(url, "0" * 64)
    asked = len(server.statuses)
    # With --checkpoint_sha256 that file is used, whatever the server has now.
    replace(path, 2)
    assert checkpoints.verify(url, wanted) == sha256
    assert len(server.statuses) == asked
    with pytest.raises(
        UsageError,
        match=f"its sha256 is {sha256_of(path)}, but --checkpoint_sha256 is {'0' * 64};",
    ):
        checkpoints.verify(url, "0" * 64)


def test_workers_elsewhere_download_what_was_verified_or_nothing(server, tmp_path, monkeypatch):
    path, url = server.folder / "model.tar.gz", f"{server.url}/model.tar.gz"
    replace(path, 1)
    sha256 = checkpoints.verify(url)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "worker"))
    assert value_of(url, sha256) == 1
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "late worker"))
    replace(path, 2)
    with pytest.raises(
        UsageError,
        match=f"{url}: it has changed since the run began; its sha256 is [0-9a-f]*, not {sha256};",
    ):
        value_of(url, sha256)


def test_a_copy_that_is_damaged_is_downloaded_again(server, cache):
    replace(server.folder / "model.tar.gz", 1)
    url = f"{server.url}/model.tar.gz"
    sha256 = checkpoints.verify(url)
    [path] = cache.glob("*/*")
    path.write_bytes(b"damaged")
    assert checkpoints.verify(url) == sha256
    assert value_of(url, sha256) == 1


DOWNLOAD = """
import sys
from beam_pipeline.embedding import checkpoints
from beam_pipeline.process import signals
signals.end_on_signals("stopped")
checkpoints.verify(sys.argv[1])
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_an_interrupted_download_leaves_nothing(server, cache, number):
    server.answer = (200, bytes(1 << 20), 1 << 21)
    server.pause.clear()
    url = f"{server.url}/model.tar.gz"
    process = subprocess.Popen(
        [sys.executable, "-c", DOWNLOAD, url], cwd=ROOT, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 60
    while not (archive := cache / "partial" / "archive").exists() or not archive.stat().st_size:
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.05)
    if number == signal.SIGKILL:
        # Another process waits for the download in progress, then removes its remains.
        threading.Timer(0.3, process.kill).start()
        checkpoints.verify(str(write_archive(server.folder.parent / "other.tar.gz", 7)))
        assert process.wait(60) == -signal.SIGKILL
    else:
        process.send_signal(number)
        assert process.wait(60) == 128 + number
    server.pause.set()
    assert not (cache / "partial").exists()


def test_what_was_left_is_removed_at_the_next_start(tmp_path, cache):
    path = write_archive(tmp_path / "model.tar.gz", 1)
    checkpoints.verify(str(path))
    (cache / "partial").mkdir()
    (cache / "partial" / "archive").write_bytes(bytes(1000))
    checkpoints.verify(str(path))
    assert not (cache / "partial").exists()
