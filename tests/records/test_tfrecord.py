"""Tests that TensorFlow's files are read, and that damage is reported."""

from __future__ import annotations

import io

import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from beam_pipeline.records.tfrecord import find_records, read_records

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
    assert offsets == [0, 16, 35]
    for offset, record in zip(offsets, RECORDS, strict=True):
        assert next(read_records(io.BytesIO(written[offset:]), "x", checked=False)) == record
    assert find_records(io.BytesIO(b""), "x") == []


@given(data=st.data())
def test_the_places_of_a_file_that_is_cut_off_are_not_found(written, data):
    length = data.draw(
        st.integers(1, len(written) - 1).filter(lambda length: length not in (16, 35))
    )
    with pytest.raises(ValueError, match=r"^x is"):
        find_records(io.BytesIO(written[:length]), "x")


def test_a_length_beyond_all_bounds_takes_no_memory():
    with pytest.raises(ValueError, match="x is broken at record 0"):
        list(read_records(io.BytesIO(b"\xff" * 12), "x", checked=False))
