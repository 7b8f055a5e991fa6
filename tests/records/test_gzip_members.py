"""Tests of gzipped shards of one member a record."""

from __future__ import annotations

import gzip
import io
import itertools

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from beam_pipeline.records import gzip_members, tfrecord

RNG = np.random.default_rng(0)
# Empty, small, larger than a chunk of reading, and well compressed.
RECORDS = [b"", b"x", RNG.bytes(1000), RNG.bytes(700_000), b"a" * 3_000_000, b"end"]
STORED = [gzip_members.compress_frame(tfrecord.frame(record)) for record in RECORDS]
SHARD = b"".join(STORED)
LIMIT = 4_000_000


def read(shard: bytes, limit: int = LIMIT) -> list[tuple[int, bytes]]:
    return list(gzip_members.read_records(io.BytesIO(shard), "shard", True, limit))


def test_records_come_back_with_their_sizes():
    assert read(SHARD) == [
        (len(stored), record) for stored, record in zip(STORED, RECORDS, strict=True)
    ]
    assert read(b"") == []


def test_other_readers_see_one_stream(tmp_path):
    path = tmp_path / "shard.tfrecord.gz"
    path.write_bytes(SHARD)
    assert gzip.decompress(SHARD) == b"".join(map(tfrecord.frame, RECORDS))
    loaded = tf.data.TFRecordDataset(str(path), "GZIP")
    assert [record.numpy() for record in loaded] == RECORDS


def test_each_record_is_read_on_its_own():
    offsets = list(itertools.accumulate(map(len, STORED), initial=0))
    for record, (start, end) in zip(RECORDS, itertools.pairwise(offsets), strict=True):
        member = SHARD[start:end]
        assert gzip_members.parse_member(member, end - start, "shard", LIMIT) == record


@pytest.mark.parametrize(
    ("member", "size"),
    [
        (STORED[2][:-1], len(STORED[2])),
        (STORED[2][:-1], len(STORED[2]) - 1),
        (STORED[2] + STORED[1], len(STORED[2] + STORED[1])),
        (b"", 0),
        (b"no gzip", 7),
        (gzip.compress(b"no record"), len(gzip.compress(b"no record"))),
        (STORED[4], len(STORED[4])),  # larger than the limit
    ],
)
def test_what_is_no_member_is_refused(member, size):
    with pytest.raises(ValueError, match="shard does not match its index"):
        gzip_members.parse_member(member, size, "shard", 2_000_000)


@pytest.mark.parametrize(
    ("shard", "message"),
    [
        (SHARD[:-1], "cut off in record 5"),
        (SHARD[: len(STORED[0]) + 5], "cut off in record 1"),
        (STORED[1] + b"junk" * 100, "broken at record 1"),
        (STORED[1] + STORED[2].replace(STORED[2][200:204], b"\0\0\0\0"), "broken at record 1"),
        (STORED[1] + gzip.compress(b""), "record 1: its gzip member is not a record"),
        (gzip.compress(tfrecord.frame(b"a") * 2), "record 0: its gzip member is not a record"),
    ],
)
def test_a_broken_shard_is_named(shard, message):
    with pytest.raises(ValueError, match=message) as caught:
        read(shard)
    assert str(caught.value).startswith("shard ")


def test_a_bomb_does_not_fill_the_memory():
    with pytest.raises(ValueError, match="record 1: it is too large"):
        read(STORED[1] + gzip.compress(bytes(50_000_000)), 1_000_000)


@given(data=st.data())
@settings(deadline=None, max_examples=100)
def test_damage_is_an_error_or_has_no_effect(data):
    position = data.draw(st.integers(0, 1200))
    damaged = bytearray(STORED[0] + STORED[1] + STORED[2])
    if position < len(damaged):
        damaged[position] ^= data.draw(st.integers(1, 255))
    try:
        assert [record for _, record in read(bytes(damaged))] == RECORDS[:3]
    except ValueError as error:
        assert str(error).startswith("shard ")
