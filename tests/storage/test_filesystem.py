"""Tests that small files are written completely or not at all, without leftovers."""

import contextlib
import os
import resource
import sys
import threading
from collections.abc import Iterator

import pytest
from apache_beam.io.filesystems import FileSystems
from apache_beam.options.pipeline_options import PipelineOptions
from hypothesis import given, settings
from hypothesis import strategies as st
from store import PREFIX

from beam_pipeline.storage import filesystem


@contextlib.contextmanager
def file_size_limit(size: int) -> Iterator[None]:
    """Make writing beyond `size` bytes fail, as a full disk does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@settings(max_examples=50, deadline=None)
@given(data=st.binary())
def test_a_file_is_read_as_it_was_written(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("files") / "file"
    filesystem.write_bytes(str(path), data)
    assert path.read_bytes() == data
    assert filesystem.read_bytes(str(path)) == data


@pytest.mark.parametrize(
    "name", ["file.gz", "file.bz2", "file.jpeg", "dataset.json", "é, and more"]
)
def test_no_name_makes_a_file_be_compressed(tmp_path, name):
    data = b"as it is" * 100
    filesystem.write_bytes(str(tmp_path / name), data)
    assert (tmp_path / name).read_bytes() == data
    assert filesystem.read_bytes(str(tmp_path / name)) == data


def test_writing_leaves_no_other_file(tmp_path):
    filesystem.write_bytes(str(tmp_path / "file"), b"data")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_file_takes_the_place_of_an_older_one(tmp_path):
    (tmp_path / "file").write_bytes(b"older and longer")
    filesystem.write_bytes(str(tmp_path / "file"), b"new")
    assert (tmp_path / "file").read_bytes() == b"new"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_file_that_cannot_be_completed_is_not_written(tmp_path):
    with file_size_limit(4096), pytest.raises(OSError):
        filesystem.write_bytes(str(tmp_path / "file"), b"data" * 4096)
    assert not (tmp_path / "file").exists()
    assert list(tmp_path.iterdir()) == []


def test_an_older_file_outlives_a_failed_attempt_to_replace_it(tmp_path):
    (tmp_path / "file").write_bytes(b"old")
    with file_size_limit(4096), pytest.raises(OSError):
        filesystem.write_bytes(str(tmp_path / "file"), b"data" * 4096)
    assert (tmp_path / "file").read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_place_that_is_taken_by_a_folder_stays_as_it_is(tmp_path):
    (tmp_path / "file").mkdir()
    with pytest.raises(OSError, match="file"):
        filesystem.write_bytes(str(tmp_path / "file"), b"data")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert list((tmp_path / "file").iterdir()) == []


def test_nobody_sees_half_a_file(tmp_path):
    path = tmp_path / "file"
    contents = [bytes([index]) * 100_000 for index in range(4)]
    path.write_bytes(contents[0])
    stop = threading.Event()
    seen = set()

    def look():
        while not stop.is_set():
            seen.add(path.read_bytes())

    reader = threading.Thread(target=look)
    reader.start()
    try:
        for _ in range(30):
            for content in contents:
                filesystem.write_bytes(str(path), content)
    finally:
        stop.set()
        reader.join()
    assert seen
    assert seen <= set(contents)


def test_writers_of_one_file_do_not_disturb_each_other(tmp_path):
    contents = [bytes([index]) * 50_000 for index in range(4)]
    errors = []

    def write(content):
        try:
            for _ in range(20):
                filesystem.write_bytes(str(tmp_path / "file"), content)
        except Exception as error:
            errors.append(error)

    writers = [threading.Thread(target=write, args=(content,)) for content in contents]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert errors == []
    assert (tmp_path / "file").read_bytes() in contents
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize(
    ("limit", "expected"),
    [(0, b""), (1, b"0"), (9, b"012345678"), (10, b"0123456789"), (11, b"0123456789")],
)
def test_read_bytes_reads_no_more_than_its_limit(tmp_path, limit, expected):
    (tmp_path / "file").write_bytes(b"0123456789")
    assert filesystem.read_bytes(str(tmp_path / "file"), limit) == expected


def test_read_bytes_names_what_it_cannot_read(tmp_path):
    with pytest.raises(OSError, match="missing"):
        filesystem.read_bytes(str(tmp_path / "missing"))
    with pytest.raises(OSError, match=tmp_path.name):
        filesystem.read_bytes(str(tmp_path))


def test_read_bytes_waits_for_no_pipe(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", "/dev/zero"):
        with pytest.raises(OSError, match=f"not a regular file: '{path}'"):
            filesystem.read_bytes(str(path))


def test_list_folder_returns_files_and_sizes(tmp_path):
    for name, size in {"a.tfrecord": 3, "b.tfrecord": 0, "dataset.json": 2}.items():
        (tmp_path / name).write_bytes(bytes(size))
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "c.tfrecord").write_bytes(b"data")
    everything = {
        str(tmp_path / name): size
        for name, size in {"a.tfrecord": 3, "b.tfrecord": 0, "dataset.json": 2}.items()
    }
    assert filesystem.list_folder(str(tmp_path)) == everything
    assert filesystem.list_folder(f"{tmp_path}/") == everything
    assert filesystem.list_folder(str(tmp_path), "*.tfrecord") == {
        path: size for path, size in everything.items() if "tfrecord" in path
    }
    assert filesystem.list_folder(str(tmp_path), "nothing-*") == {}


def test_a_folder_that_is_not_there_holds_nothing(tmp_path):
    assert filesystem.list_folder(str(tmp_path / "missing")) == {}


def test_list_folder_of_the_current_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    filesystem.write_bytes("file", b"data")
    (tmp_path / "data").mkdir()
    filesystem.write_bytes("data/file", b"more data")
    assert filesystem.list_folder("data") == {"data/file": 9}
    assert [*filesystem.list_folder(".").values()] == [4]


@pytest.mark.parametrize(
    ("path", "name"),
    [("/data/a.json", "a.json"), ("data/a.json", "a.json"), ("gs://bucket/b/a.json", "a.json")],
)
def test_base_name(path, name):
    assert filesystem.base_name(path) == name


@pytest.mark.parametrize(("path", "extra"), [("gs://bucket/x", "gcp"), ("s3://bucket/x", "aws")])
def test_a_missing_client_is_reported(monkeypatch, path, extra):
    for module in ("google.cloud.storage", "boto3"):
        monkeypatch.setitem(sys.modules, module, None)  # simulates a module that is not installed
    with pytest.raises(ValueError, match=rf"{path} .*pip install 'beam_pipeline\[{extra}\]'"):
        filesystem.check_client(path)
    filesystem.check_client("/a/local/path")


def test_clients_get_the_options_that_a_pipeline_has_set(monkeypatch):
    options = PipelineOptions(["--s3_region_name", "here"])
    monkeypatch.setattr(FileSystems, "_pipeline_options", None)
    assert filesystem.client_options() is not None
    FileSystems.set_options(options)
    assert filesystem.client_options() is options


def test_a_library_writes_a_file_on_a_disk_completely_or_not_at_all(tmp_path):
    path = str(tmp_path / "file")
    with filesystem.create_from_disk(path) as temporary:
        with open(temporary, "wb") as file:
            file.write(b"data")
        assert os.path.dirname(temporary) == str(tmp_path)
        assert not os.path.exists(path)
    assert (tmp_path / "file").read_bytes() == b"data"
    with pytest.raises(ZeroDivisionError), filesystem.create_from_disk(path) as temporary:
        with open(temporary, "wb") as file:
            file.write(b"half")
        1 / 0  # noqa: B018
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"data"]


def test_an_object_store_gets_what_a_library_writes(tmp_path):
    path = f"{PREFIX}{tmp_path}/file"
    with filesystem.create_from_disk(path) as temporary:
        with open(temporary, "wb") as file:
            file.write(b"data")
        assert list(tmp_path.iterdir()) == []
    assert filesystem.read_bytes(path) == b"data"
    assert filesystem.size_of(path) == 4
    assert not os.path.exists(temporary)
    with pytest.raises(FileNotFoundError, match="nothing"):
        filesystem.size_of(str(tmp_path / "nothing"))


def test_an_object_store_shows_no_file_that_was_not_completed(tmp_path):
    path = f"{PREFIX}{tmp_path}/file"
    with pytest.raises(ZeroDivisionError), filesystem.create(path) as file:
        file.write(b"half")
        1 / 0  # noqa: B018
    assert list(tmp_path.iterdir()) == []
