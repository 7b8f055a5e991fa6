"""Tests of the tf.train.Example wire format against the protobuf library.

The messages are those that the project writes, and any that others may have written.
"""

from __future__ import annotations

import contextlib

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import example, given
from hypothesis import strategies as st

from beam_pipeline.records.example_proto import read_example, write_example

FLOATS = np.array([0.5, -1.25, 3e38, 0], np.float32)


def serialize(**features: tf.train.Feature) -> bytes:
    return tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString()


def test_protobuf_reads_what_is_written():
    written = write_example(
        {
            "text": "é".encode(),
            "size": 70_000,
            "floats": FLOATS,
            "raw": np.arange(6, dtype=np.uint8).reshape(2, 3),
        }
    )
    features = tf.train.Example.FromString(written).features.feature
    assert list(features["text"].bytes_list.value) == ["é".encode()]
    assert list(features["size"].int64_list.value) == [70_000]
    np.testing.assert_array_equal(features["floats"].float_list.value, FLOATS)
    assert list(features["raw"].bytes_list.value) == [bytes(range(6))]


def test_reads_what_protobuf_writes():
    decoded = read_example(
        serialize(
            texts=tf.train.Feature(bytes_list=tf.train.BytesList(value=[b"", b"two"])),
            floats=tf.train.Feature(float_list=tf.train.FloatList(value=FLOATS)),
            numbers=tf.train.Feature(int64_list=tf.train.Int64List(value=[0, -1, 1 << 62])),
            nothing=tf.train.Feature(),
        )
    )
    assert decoded["texts"] == [b"", b"two"]
    np.testing.assert_array_equal(decoded["floats"], FLOATS)
    np.testing.assert_array_equal(decoded["numbers"], [0, -1, 1 << 62])
    assert decoded["nothing"] == []


def test_reads_numbers_that_are_not_packed():
    # Feature {float_list {value: 0.5, value: -1.25}}, each float in a field of its own.
    floats = b"".join(b"\x0d" + value.tobytes() for value in FLOATS[:2])
    feature = b"\x12" + bytes([len(floats)]) + floats
    entry = b"\x0a\x01x\x12" + bytes([len(feature)]) + feature
    message = b"\x0a" + bytes([len(entry)]) + entry
    decoded = read_example(b"\x0a" + bytes([len(message)]) + message)
    np.testing.assert_array_equal(decoded["x"], FLOATS[:2])


@given(st.binary(max_size=200))
@example(b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01")
@example(b"\x0a\x04\x0a\x02\x08\x01")
def test_any_bytes_are_read_or_refused(data):
    with contextlib.suppress(ValueError):
        assert isinstance(read_example(data), dict)


@given(st.data())
def test_a_record_that_was_damaged_is_read_or_refused(data):
    written = bytearray(write_example({"text": b"abc", "size": 7, "floats": FLOATS}))
    written[data.draw(st.integers(0, len(written) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(ValueError):
        assert isinstance(read_example(bytes(written)), dict)


def test_what_is_cut_off_is_refused():
    written = write_example({"text": b"abc"})
    with pytest.raises(ValueError, match="extends beyond its message"):
        read_example(written[:-1])
