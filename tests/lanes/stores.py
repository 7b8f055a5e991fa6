"""Tests on object stores: gs:// and s3://, each an emulator on loopback."""

from __future__ import annotations

import email
import http.server
import io
import json
import os
import threading
import urllib.parse
import urllib.request
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import archives
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from apache_beam.options.pipeline_options import PipelineOptions
from buckets import gcs, s3, upload, use
from datasets import (
    CONTAINER_OPTIONS,
    OPTIONS,
    Dataset,
    assert_right,
    assert_same,
    job,
    read_dataset,
    run_job,
)

from beam_pipeline import dataset, naming, report, validate
from beam_pipeline.config import UsageError
from beam_pipeline.dataset_info import DatasetInfo
from beam_pipeline.elements import Failure
from beam_pipeline.embedding import checkpoints
from beam_pipeline.fetching.stored_images import read_file
from beam_pipeline.launch import leases
from beam_pipeline.sources import parquet_images
from beam_pipeline.storage import filesystem, ranges


@pytest.fixture(scope="module", params=[gcs, s3], ids=["gs", "s3"])
def bucket(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """Yield the URL of an empty bucket, for this process and those that it starts."""
    with use(request.param(tmp_path_factory.mktemp("store"))) as url:
        yield url


def list_written(made: Dataset) -> set[str]:
    """Return the names of all files of a complete dataset."""
    info = DatasetInfo.from_json(json.dumps(made.description))
    own = ("dataset.json", "metrics.json", "report.html")
    return {*own, *info.file_sizes, *info.index_names, *naming.DESCRIPTIONS}


def test_list_checkpoint_originals_and_dataset(
    bucket, url_list, untrained_checkpoint, embedded, photographs, tmp_path
):
    urls = upload(url_list, f"{bucket}/lists/urls.txt")
    weights = upload(untrained_checkpoint, f"{bucket}/models/untrained.ckpt")
    keep = ["--input", urls, "--original_dir", f"{bucket}/originals", *OPTIONS]
    first = run_job(
        [*keep, "--checkpoint", weights, "--output", f"{bucket}/dataset"],
        XDG_CACHE_HOME=str(tmp_path),
    )
    assert first.returncode == 0, first.stderr
    made = read_dataset(f"{bucket}/dataset")
    assert_right(made)
    assert_same(made, embedded)
    assert made.description["checkpoint"]["sha256"] == checkpoints.verify(str(untrained_checkpoint))

    # A complete dataset is left alone; kept originals are not requested again.
    again = run_job(
        [*keep, "--checkpoint", weights, "--output", f"{bucket}/dataset"],
        XDG_CACHE_HOME=str(tmp_path),
    )
    assert again.returncode == 0 and "is complete" in again.stdout
    asked = sum("/sized/" in request.path for request in photographs.requests)
    other = [
        *keep,
        "--encoding",
        "rgb_png",
        "--compression",
        "gzip",
        "--output",
        f"{bucket}/other",
    ]
    second = run_job(other)
    assert second.returncode == 0, second.stderr
    assert sum("/sized/" in request.path for request in photographs.requests) == asked
    assert set(read_dataset(f"{bucket}/other").examples) == set(made.examples)

    # A dataset is read and validated like one on a disk.
    folder = f"{bucket}/other"
    assert validate.main([folder, "--show", "1"]) == 0
    assert report.main([folder]) == 0
    assert filesystem.list_folder(folder, "report.html")
    examples = dataset.examples(folder)
    names = [example["image_name"] for example in examples]
    assert [examples[number]["image_name"] for number in (5, 0, -1)] == [
        names[number] for number in (5, 0, -1)
    ]


def test_a_killed_run_resumes(bucket, url_list, reference):
    options = [
        "--input",
        url_list,
        *OPTIONS,
        "--output",
        f"{bucket}/commits",
        "--urls_per_commit",
        "8",
    ]
    with job(options) as process:
        while not (first := filesystem.list_folder(f"{bucket}/commits", "commit-00000.json")):
            assert process.poll() is None
        process.kill()
    assert not filesystem.list_folder(f"{bucket}/commits", "dataset.json"), "it was too quick"
    record = json.loads(filesystem.read_bytes(next(iter(first))))
    done = run_job(options)
    assert done.returncode == 0, done.stderr
    assert "resuming after" in done.stdout
    made = read_dataset(f"{bucket}/commits")
    assert set(made.examples) == set(reference.examples) and made.failures == reference.failures
    assert {shard["name"] for shard in record["train"]} <= list_written(made)
    left = {
        filesystem.base_name(path) for path in filesystem.list_folder(f"{bucket}/commits", "**")
    }
    assert left == list_written(made)


def test_a_second_run_into_one_folder_is_refused(bucket, url_list, reference):
    options = [
        "--input",
        url_list,
        *OPTIONS,
        "--output",
        f"{bucket}/locked",
    ]
    with job(options) as process:
        while not filesystem.list_folder(f"{bucket}/locked", "run.lock"):
            assert process.poll() is None
        refused = run_job(options)
        assert refused.returncode == 2, refused.stderr
        [line] = refused.stderr.splitlines()
        assert f"in use by another run (process {process.pid} on " in line
        assert process.wait() == 0
    assert set(read_dataset(f"{bucket}/locked").examples) == set(reference.examples)


class Objects(http.server.BaseHTTPRequestHandler):
    """Google's JSON API for one object; unlike the emulator, it has conditions."""

    objects: ClassVar[dict[str, tuple[int, bytes]]] = {}

    def do_GET(self) -> None:
        found, query = self._find()
        if found is None:
            self._answer(404, b"{}")
        elif "media" in query.get("alt", []):
            self._answer(200, found[1])
        else:
            self._answer(200, json.dumps({"name": "lock", "generation": str(found[0])}).encode())

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        found, query = self._find()
        generation = found[0] if found else 0
        if query["ifGenerationMatch"] != [str(generation)]:
            return self._answer(412, b"{}")
        # One part holds metadata, the other data.
        data = list(
            email.message_from_bytes(
                b"Content-Type: " + self.headers["Content-Type"].encode() + b"\r\n\r\n" + body
            ).walk()
        )[-1].get_payload(decode=True)
        assert isinstance(data, bytes)
        self.objects["lock"] = generation + 1, data
        return self._answer(
            200, json.dumps({"name": "lock", "generation": str(generation + 1)}).encode()
        )

    def do_DELETE(self) -> None:
        found, query = self._find()
        if found and query["ifGenerationMatch"] == [str(found[0])]:
            del self.objects["lock"]
            return self._answer(204, b"")
        return self._answer(412 if found else 404, b"{}")

    def _find(self) -> tuple[tuple[int, bytes] | None, dict[str, list[str]]]:
        return self.objects.get("lock"), urllib.parse.parse_qs(
            urllib.parse.urlsplit(self.path).query
        )

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *unused_arguments: object) -> None:
        pass


@pytest.fixture
def conditions(bucket, tmp_path, monkeypatch) -> Iterator[str]:
    """Yield the URL of an object in a store that supports conditions."""
    if bucket.startswith("s3"):
        yield f"{bucket}/lock"
        return
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Objects) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"http://127.0.0.1:{server.server_port}")
        yield f"{bucket}/lock"
        server.shutdown()


def test_writes_have_conditions(conditions):
    store = leases.STORES[conditions.partition(":")[0]](conditions, PipelineOptions([]))
    assert store.read() is None
    first = store.write(b"one", None)
    assert store.read() == (b"one", first)
    with pytest.raises(leases.ConflictError):
        store.write(b"two", None)
    second = store.write(b"two", first)
    with pytest.raises(leases.ConflictError):
        store.write(b"three", first)
    assert store.read() == (b"two", second)
    store.delete(second)
    assert store.read() is None
    with pytest.raises(leases.ConflictError):
        store.write(b"three", second)


def test_overwrite_leaves_nothing_of_what_was_there(bucket, url_list):
    options = ["--input", url_list, *OPTIONS, "--output", f"{bucket}/over"]
    assert run_job([*options, "--urls_per_commit", "20"]).returncode == 0
    done = run_job([*options, "--encoding", "rgb_png", "--overwrite"])
    assert done.returncode == 0, done.stderr
    made = read_dataset(f"{bucket}/over")
    left = {filesystem.base_name(path) for path in filesystem.list_folder(f"{bucket}/over", "**")}
    assert left == list_written(made)


def test_a_folder_of_images(bucket, tmp_path):
    from origin import image

    for index in range(3):
        filesystem.write_bytes(f"{bucket}/photographs/{index}.jpg", image(f"{index}.jpg"))
    arguments = [
        "--images",
        f"{bucket}/photographs/*.jpg",
        "--output",
        tmp_path / "dataset",
        "--checkpoint",
        "none",
    ]
    done = run_job(arguments)
    assert done.returncode == 0, done.stderr
    assert sorted(read_dataset(tmp_path / "dataset").examples) == [
        f"{bucket}/photographs/{index}.jpg" for index in range(3)
    ]


def test_a_missing_bucket_is_reported(bucket, url_list):
    done = run_job(
        ["--input", url_list, "--checkpoint", "none", "--output", f"{bucket}-of-nobody/dataset"]
    )
    assert done.returncode == 2, done.stderr
    assert len(done.stderr.splitlines()) == 1 and "bucket-of-nobody" in done.stderr


class Ranges:
    """Counts the requests for parts of files, and their bytes."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch):
        self.requests, self.bytes, self._read = 0, 0, ranges.read_range
        monkeypatch.setattr(ranges, "read_range", self.read)

    def read(self, path: str, offset: int, size: int) -> bytes:
        self.requests += 1
        self.bytes += size
        return self._read(path, offset, size)


def test_a_tar_of_tars_is_read_by_ranges(bucket, monkeypatch):
    bodies = {
        f"{wnid}.tar/{wnid}_{number}.JPEG": os.urandom(1 << 20)
        for wnid in archives.WNIDS
        for number in range(3)
    }
    data = archives.make_tar(
        (
            f"{wnid}.tar",
            archives.make_tar(
                (name.partition("/")[2], body)
                for name, body in bodies.items()
                if name.startswith(wnid)
            ),
        )
        for wnid in archives.WNIDS
    )
    path = f"{bucket}/archives/train.tar"
    filesystem.write_bytes(path, data)
    counted = Ranges(monkeypatch)
    refs = archives.list_images(path)
    assert counted.bytes < len(data) / 4
    assert [ref.url for ref in refs] == [f"{path}#{name}" for name in bodies]
    before = counted.requests, counted.bytes
    assert archives.read_bodies(refs) == {f"{path}#{name}": body for name, body in bodies.items()}
    assert counted.requests - before[0] == len(bodies)
    assert counted.bytes - before[1] == sum(map(len, bodies.values()))


def test_other_archives_and_folders(bucket, tmp_path):
    contents = {
        "train.tgz": archives.make_train_tar("w:gz"),
        "kaggle.zip": archives.make_kaggle_zip(zipfile.ZIP_DEFLATED),
        "photos/a.JPEG": archives.body("a"),
        "photos/deep/[b] é.png": archives.body("b"),
        "photos/readme.txt": b"no image",
    }
    for name, data in contents.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        filesystem.write_bytes(f"{bucket}/kinds/{name}", data)
    for name in ("train.tgz", "kaggle.zip", "photos/"):
        found = []
        for folder in (str(tmp_path), f"{bucket}/kinds"):
            path = f"{folder}/{name}"
            bodies = archives.read_bodies(archives.list_images(path))
            found.append({url.removeprefix(folder): body for url, body in bodies.items()})
        assert found[0] == found[1] and len(found[0]) >= 2


def test_containers(bucket, containers, container_reference, tmp_path):
    copies = [upload(Path(path), f"{bucket}/{Path(path).name}") for path in containers.split(",")]
    done = run_job(
        ["--images", ",".join(copies), "--output", f"{bucket}/contained", *CONTAINER_OPTIONS]
    )
    assert done.returncode == 0, done.stderr
    made = read_dataset(f"{bucket}/contained")
    local = str(Path(containers.split(",")[0]).parent)
    bodies = {
        url.replace(local, bucket): example["image_id"]
        for url, (_, example) in container_reference.examples.items()
    }
    assert {url: example["image_id"] for url, (_, example) in made.examples.items()} == bodies
    for name in ("counts", "measures"):
        assert made.description[name] == container_reference.description[name]
    assert {
        frozenset(url.replace(bucket, local) for url in urls) for urls in made.clusters
    } == container_reference.clusters
    kept = [
        len(dataset.examples(f"{bucket}/contained", split, exclude=("near_duplicates",)))
        for split in ("train", "validation")
    ]
    assert sum(kept) == len(made.clusters)
    # A record of an object store is found by the index of its shard.
    examples = dataset.examples(f"{bucket}/contained")
    assert examples[7]["image_name"] == list(examples)[7]["image_name"]


def test_a_parquet_file_is_read_by_ranges(bucket, monkeypatch):
    rows = [
        {"image": {"bytes": os.urandom(200_000), "path": f"{number}.png"}} for number in range(60)
    ]
    file = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), file, row_group_size=20)
    path = f"{bucket}/ranges.parquet"
    filesystem.write_bytes(path, file.getvalue())
    counted = Ranges(monkeypatch)
    refs = archives.list_images(path)
    assert [ref.id for ref in refs] == [str(number) for number in range(60)]
    assert counted.bytes < len(file.getvalue()) / 4
    before = counted.bytes
    outcomes = parquet_images.read_group(refs[20:40], archives.make_config())
    bodies = [rows[number]["image"]["bytes"] for number in range(20, 40)]
    assert [data for _, data in outcomes] == bodies
    assert counted.bytes - before < 0.5 * len(file.getvalue())


def test_a_table_of_urls(bucket, photographs, tmp_path):
    rows = [
        {"URL": photographs.url(f"good/{number}.jpg"), "TEXT": f"a caption, {number}"}
        for number in range(5)
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "laion.parquet")
    urls = upload(tmp_path / "laion.parquet", f"{bucket}/tables/laion.parquet")
    options = ["--checkpoint", "none", "--allow_private_addresses", "--keep_columns", "TEXT"]
    done = run_job(["--input", urls, "--output", tmp_path / "dataset", *options])
    assert done.returncode == 0, done.stderr
    kept = {
        url: json.loads(example["image_metadata"])["TEXT"]
        for url, (_, example) in read_dataset(tmp_path / "dataset").examples.items()
    }
    assert kept == {row["URL"]: row["TEXT"] for row in rows}


def test_what_is_not_in_a_bucket_is_named(bucket):
    for path in (f"{bucket}/none/x.tar", f"{bucket}/none/x.zip", f"{bucket}/none/"):
        with pytest.raises(UsageError, match=path):
            archives.list_images(path)
    path = f"{bucket}/none/x.jpg"
    outcome = read_file(archives.list_images(path)[0], 100)
    assert isinstance(outcome, Failure) and outcome.reason == "not_found"
    filesystem.write_bytes(f"{bucket}/short", b"1234")
    for name, offset in (("none", 0), ("short", 2), ("short", 9)):
        with pytest.raises(OSError, match=name):
            ranges.read_range(f"{bucket}/{name}", offset, 4)
