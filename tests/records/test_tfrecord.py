"""Tests that TensorFlow's files are read, and that damage is reported."""

from __future__ import annotations

import io
import itertools
import struct

import pytest
import tensorflow as tf
from hypothesis import assume, given
from hypothesis import strategies as st

from beam_pipeline.records.tfrecord import (
    FRAMING,
    find_records,
    format_index,
    parse_frame,
    parse_index,
    read_records,
)

RECORDS = [b"", b"one", bytes(range(256)) * 20]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("records") / "x.tfrecord"
    with tf.io.TFRecordWriter(str(path)) as writer:
        for record in RECORDS:
            writer.write(record)
    return path.read_bytes()


def test_what_tensorflow_writes(written):
    assert list(read_records(io.BytesIO(written), "x")) == RECORDS
    assert list(read_records(io.BytesIO(b""), "x")) == []


@given(data=st.data())
def test_a_flipped_bit_is_found(written, data):
    offset, bit = data.draw(st.integers(0, len(written) - 1)), data.draw(st.integers(0, 7))
    damaged = bytearray(written)
    damaged[offset] ^= 1 << bit
    with pytest.raises(ValueError, match=r"^x is (broken at|cut off in) record [012]"):
        list(read_records(io.BytesIO(bytes(damaged)), "x"))


@given(data=st.data())
def test_a_file_that_is_cut_off_is_found(written, data):
    ends = [0, 16, 35]
    length = data.draw(st.integers(1, len(written) - 1).filter(lambda length: length not in ends))
    with pytest.raises(ValueError, match=r"^x is"):
        list(read_records(io.BytesIO(written[:length]), "x"))


def test_records_are_found_without_reading_them(written):
    offsets = find_records(io.BytesIO(written), "x")
    assert offsets == [0, 16, 35, len(written)]
    for offset, record in zip(offsets, RECORDS, strict=False):
        assert next(read_records(io.BytesIO(written[offset:]), "x", checked=False)) == record
    assert find_records(io.BytesIO(b""), "x") == [0]


@given(data=st.data())
def test_the_places_of_a_file_that_is_cut_off_are_not_found(written, data):
    length = data.draw(
        st.integers(1, len(written) - 1).filter(lambda length: length not in (16, 35))
    )
    with pytest.raises(ValueError, match=r"^x is"):
        find_records(io.BytesIO(written[:length]), "x")


def tfrecord2idx(content: bytes) -> bytes:
    """Return what NVIDIA DALI's script tfrecord2idx writes for a file."""
    file = io.BytesIO(content)
    lines: list[str] = []
    while True:
        current = file.tell()
        if not (length := file.read(8)):
            return "".join(lines).encode()
        file.read(4)
        file.read(struct.unpack("q", length)[0])
        file.read(4)
        lines.append(str(current) + " " + str(file.tell() - current) + "\n")


def test_the_index_is_that_of_dali(written):
    index = format_index(len(record) + FRAMING for record in RECORDS)
    assert index == tfrecord2idx(written)
    offsets = parse_index(index, "x.idx", len(RECORDS), len(written))
    assert offsets == find_records(io.BytesIO(written), "x")
    frames = [written[start:end] for start, end in itertools.pairwise(offsets)]
    assert [parse_frame(frame, len(frame), "x") for frame in frames] == RECORDS
    assert parse_index(b"", "x.idx", 0, 0) == [0]


def test_a_frame_that_is_cut_off_gives_no_record(written):
    with pytest.raises(ValueError, match="x does not match its index"):
        parse_frame(written[:16], 17, "x")


@given(index=st.one_of(st.binary(), st.text("0123456789 -\n").map(str.encode)))
def test_any_other_index_is_refused(written, index):
    with pytest.raises(ValueError, match=r"^x\.idx is"):
        parse_index(index, "x.idx", len(RECORDS), len(written))


@given(start=st.integers(0, 5171), size=st.integers(0, 5171))
def test_a_place_without_a_frame_gives_no_record(written, start, size):
    assume((start, size) not in ((0, 16), (16, 19), (35, 5136)))
    with pytest.raises(ValueError, match="x does not match its index"):
        parse_frame(written[start : start + size], size, "x")


def test_a_length_beyond_all_bounds_takes_no_memory():
    with pytest.raises(ValueError, match="x is broken at record 0"):
        list(read_records(io.BytesIO(b"\xff" * 12), "x", checked=False))
