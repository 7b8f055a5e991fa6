"""Tests of reading image files and images in archives."""

from __future__ import annotations

import contextlib
import os
import socket
import tracemalloc
import zlib
from pathlib import Path

import pytest
from origin import image
from patience import in_time

from beam_pipeline.elements import EncodedImage, Extent, Failure, ImageRef
from beam_pipeline.fetching.stored_images import read_file


def ref_of(path: Path | str) -> ImageRef:
    """Return the image of a file."""
    return ImageRef("", str(path), location=Extent(str(path)))


class TestReadFile:
    def test_reads(self, tmp_path):
        path = tmp_path / "x y%20.jpg"
        path.write_bytes(image("x.jpg"))
        ref = ref_of(path)
        for limit in (len(image("x.jpg")), 10**9):
            outcome = read_file(ref, limit)
            assert isinstance(outcome, EncodedImage)
            assert (outcome.ref, outcome.data, outcome.attempts, outcome.final_url) == (
                ref,
                image("x.jpg"),
                1,
                str(path),
            )

    def test_what_cannot_be_read(self, tmp_path):
        (tmp_path / "empty.jpg").touch()
        (tmp_path / "large.jpg").write_bytes(b"x" * 101)
        for name, reason in (
            ("none.jpg", "not_found"),
            ("", "not_found"),
            ("empty.jpg", "empty"),
            ("large.jpg", "too_large"),
        ):
            outcome = read_file(ref_of(tmp_path / name), 100)
            assert isinstance(outcome, Failure)
            assert (outcome.stage, outcome.reason, outcome.attempts) == ("fetch", reason, 1)

    def test_reads_a_part_of_a_file(self, tmp_path):
        path, body = tmp_path / "archive", image("x.jpg")
        packer = zlib.compressobj(9, wbits=-15)
        packed = packer.compress(body) + packer.flush()
        path.write_bytes(b"before" + body + packed + b"behind")
        stored = Extent(str(path), 6, len(body))
        deflated = Extent(str(path), 6 + len(body), len(packed), is_deflated=True)
        for extent in (stored, deflated):
            ref = ImageRef("1", f"{path}#x.jpg", location=extent)
            outcome = read_file(ref, len(body))
            assert isinstance(outcome, EncodedImage)
            assert (outcome.data, outcome.final_url) == (body, ref.url)
            outcome = read_file(ref, len(body) - 1)
            assert isinstance(outcome, Failure) and outcome.reason == "too_large"

    @pytest.mark.parametrize("damage", ["cut", "garbage", "ends in the file"])
    def test_damaged_deflate(self, tmp_path, damage):
        packer = zlib.compressobj(9, wbits=-15)
        packed = packer.compress(image("x.jpg")) + packer.flush()
        size = len(packed)
        if damage == "garbage":
            packed = b"\xff" * size
        elif damage == "cut":
            packed, size = packed + b"\0", size - 100
        (tmp_path / "archive").write_bytes(packed)
        size += damage == "ends in the file"
        ref = ImageRef("", "x", location=Extent(str(tmp_path / "archive"), 0, size, True))
        outcome = read_file(ref, 10**6)
        assert isinstance(outcome, Failure)
        if damage == "ends in the file":
            assert (outcome.stage, outcome.reason) == ("fetch", "not_found")
            assert str(tmp_path / "archive") in outcome.detail
        else:
            assert (outcome.stage, outcome.reason) == ("read", "corrupt_container")

    def test_a_deflate_bomb_is_bounded(self, tmp_path):
        packer = zlib.compressobj(9, wbits=-15)
        packed = packer.compress(bytes(200 << 20)) + packer.flush()
        (tmp_path / "bomb").write_bytes(packed)
        extent = Extent(str(tmp_path / "bomb"), 0, len(packed), is_deflated=True)
        tracemalloc.start()
        outcome = read_file(ImageRef("", "x", location=extent), 1 << 20)
        peak_bytes = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert isinstance(outcome, Failure) and outcome.reason == "too_large"
        assert peak_bytes < 4 << 20

    def test_what_is_no_regular_file_is_not_waited_for(self, tmp_path):
        os.mkfifo(tmp_path / "pipe.jpg")
        (tmp_path / "link.jpg").symlink_to(tmp_path / "pipe.jpg")
        (tmp_path / "folder.jpg").mkdir()
        with contextlib.closing(socket.socket(socket.AF_UNIX)) as server:
            server.bind(str(tmp_path / "s"))
            paths = [
                *(tmp_path / name for name in ("pipe.jpg", "link.jpg", "folder.jpg", "s")),
                "/dev/zero",
                "/dev/null",
            ]
            for path in paths:
                outcome = in_time(read_file, ref_of(path), 100)
                assert isinstance(outcome, Failure)
                assert (outcome.stage, outcome.reason, outcome.attempts) == (
                    "fetch",
                    "not_found",
                    1,
                )
