"""Tests that a part of a file is read exactly, from many threads, and from regular files only."""

import concurrent.futures
import os
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from beam_pipeline.storage import ranges


@settings(max_examples=50, deadline=None)
@given(data=st.binary(max_size=300), offset=st.integers(0, 400), size=st.integers(0, 400))
def test_a_part_is_read_or_the_error_names_the_file(tmp_path_factory, data, offset, size):
    path = tmp_path_factory.mktemp("files") / "file"
    path.write_bytes(data)
    if not size or offset + size <= len(data):
        assert ranges.read_range(str(path), offset, size) == data[offset : offset + size]
        return
    with pytest.raises(OSError, match="file") as caught:
        ranges.read_range(str(path), offset, size)
    assert caught.value.filename == str(path)


def test_a_file_that_takes_the_place_of_another_is_read(tmp_path):
    path = tmp_path / "file"
    for number in range(3):
        (tmp_path / "new").write_bytes(b"body %d" % number)
        (tmp_path / "new").rename(path)
        assert ranges.read_range(str(path), 5, 1) == b"%d" % number


def test_a_file_that_is_removed_is_not_found(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"body")
    assert ranges.read_range(str(path), 0, 4) == b"body"
    path.unlink()
    with pytest.raises(FileNotFoundError, match=str(path)):
        ranges.read_range(str(path), 0, 4)


def test_what_would_block_is_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", "/dev/zero", tmp_path):
        for read in (lambda path: ranges.read_range(path, 0, 1), ranges.open_seekable):
            with pytest.raises(OSError, match=str(path)):
                read(str(path))


def test_threads_read_more_files_than_are_kept_open(tmp_path):
    paths = [tmp_path / str(number) for number in range(2 * ranges.MAX_OPEN)]
    for path in paths:
        path.write_bytes(path.name.encode().rjust(1000))
    before = len(os.listdir("/proc/self/fd"))
    barrier = threading.Barrier(8)

    def read_all(turn: int) -> bool:
        barrier.wait(30)
        return all(
            ranges.read_range(str(path), 990, 10) == path.name.encode().rjust(10)
            for path in paths[turn * 7 :] + paths[: turn * 7]
        )

    with concurrent.futures.ThreadPoolExecutor(8) as threads:
        assert all(threads.map(read_all, range(8)))
    assert len(os.listdir("/proc/self/fd")) <= before + ranges.MAX_OPEN


def test_a_seekable_file_is_searched(tmp_path):
    (tmp_path / "file").write_bytes(bytes(range(200)))
    with ranges.open_seekable(str(tmp_path / "file")) as file:
        assert file.seek(0, 2) == 200
        file.seek(150)
        assert file.read(2) == bytes([150, 151])
