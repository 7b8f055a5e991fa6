"""Tests of Parquet files of URLs, in the layouts of published data sets and with damage."""

import collections
import datetime
import decimal
import functools
import gzip
import json
import os
import random
import tempfile
import threading
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from store import PREFIX

from beam_pipeline.config import Config, UsageError
from beam_pipeline.elements import ImageRef, Problem
from beam_pipeline.sources import listing, parquet_table, registry


@functools.cache
def make_config(**options) -> Config:
    return Config(input="x", output="out", **options)


def write(path: Path, columns: dict, **options) -> Path:
    pq.write_table(pa.table(columns), path, **options)
    return path


def read(path: Path, **options) -> list[ImageRef]:
    config = make_config(**options)
    source = registry.find_input(str(path), config)
    assert source is parquet_table
    return [ref for ref in source.read_refs(str(path), config) if ref]


# Published layouts.


def test_laion(tmp_path):
    columns = {
        "SAMPLE_ID": pa.array([2.24e12, None], pa.float64()),
        "URL": ["http://a.example/1.jpg", "http://a.example/2.jpg"],
        "TEXT": ["a dog", None],
        "HEIGHT": pa.array([300, 400], pa.int32()),
        "similarity": [0.25, float("nan")],
    }
    refs = read(write(tmp_path / "part-00000", columns), keep_columns="similarity,TEXT,HEIGHT")
    assert refs == [
        ImageRef(
            "2240000000000",
            "http://a.example/1.jpg",
            metadata='{"similarity":0.25,"TEXT":"a dog","HEIGHT":300}',
        ),
        ImageRef(
            "", "http://a.example/2.jpg", metadata='{"similarity":null,"TEXT":null,"HEIGHT":400}'
        ),
    ]


def test_datacomp(tmp_path):
    columns = {
        "url": ["http://a.example/1.jpg"],
        "text": ["a dog"],
        "uid": ["ab" * 16],
        "face_bboxes": [[[0.5, 0.25]]],
        "sha256": ["AB" * 32],
    }
    options = {"sha256_column": "sha256", "keep_columns": "face_bboxes"}
    assert read(write(tmp_path / "a.parquet", columns), **options) == [
        ImageRef(
            "ab" * 16,
            "http://a.example/1.jpg",
            metadata='{"face_bboxes":[[0.5,0.25]]}',
            digest=f"sha256:{'ab' * 32}",
        )
    ]


def test_coyo(tmp_path):
    columns = {"id": [4896263451343], "url": ["http://a.example/1.jpg"], "num_faces": [0]}
    assert read(write(tmp_path / "a.parquet", columns), class_column="num_faces") == [
        ImageRef("4896263451343", "http://a.example/1.jpg", image_class="0")
    ]


# Forms of tables.

URLS = [f"http://a.example/{number}.jpg" for number in range(2_500)]


@pytest.mark.parametrize(
    "kind",
    [
        pa.string(),
        pa.large_string(),
        pa.binary(),
        pa.large_binary(),
        pa.string_view(),
        pa.dictionary(pa.int32(), pa.string()),
    ],
    ids=str,
)
@pytest.mark.parametrize("options", [{}, {"row_group_size": 300, "compression": "zstd"}], ids=str)
def test_urls_of_every_type_are_read(tmp_path, kind, options):
    path = write(tmp_path / "a.parquet", {"url": pa.array(URLS, kind)}, **options)
    assert [ref.url for ref in read(path)] == URLS


def test_text_that_is_not_utf8_is_latin_1(tmp_path):
    raw = pa.array([b"http://a.example/\xe9.jpg", b"http://a.example/\xc3\xa9.jpg\n"])
    text = pa.Array.from_buffers(pa.string(), 2, raw.buffers())
    path = write(tmp_path / "a.parquet", {"url": text, "tags": [["x"], ["y"]]})
    assert [ref.url for ref in read(path, keep_columns="tags")] == ["http://a.example/é.jpg"] * 2


def test_values_of_every_type_are_kept(tmp_path):
    columns = {
        "url": ["http://a.example/1.jpg"],
        "date": [datetime.date(2024, 1, 2)],
        "price": [decimal.Decimal("1.50")],
        "raw": [b"\xe9"],
        "box": [{"x": 1, "y": [True, None]}],
        "far": pa.array([10**12], pa.timestamp("s")),
    }
    [ref] = read(write(tmp_path / "a.parquet", columns), keep_columns="box,raw,price,date,far")
    assert json.loads(ref.metadata) == {
        "box": {"x": 1, "y": [True, None]},
        "raw": "é",
        "price": "1.50",
        "date": "2024-01-02",
        "far": None,
    }


@pytest.mark.parametrize("digest", [bytes(16), "0" * 32, b"0" * 32, "A" * 22 + "=="], ids=repr)
def test_digests(tmp_path, digest):
    path = write(tmp_path / "a.parquet", {"url": ["http://a.example/1.jpg"], "sum": [digest]})
    assert [ref.digest for ref in read(path, md5_column="sum")] == ["md5:" + "0" * 32]


def test_only_the_columns_in_use_are_read(tmp_path):
    path = write(
        tmp_path / "a.parquet",
        {"url": URLS, "x": [random.Random(0).randbytes(900) for _ in URLS]},
        compression="none",
        use_dictionary=False,
    )
    data = bytearray(path.read_bytes())
    column = pq.ParquetFile(path).metadata.row_group(0).column(1)
    start, size = column.data_page_offset, column.total_compressed_size
    data[start : start + size] = bytes(size)
    path.write_bytes(data)
    assert [ref.url for ref in read(path)] == URLS


def test_a_file_on_an_object_store(tmp_path):
    path = write(tmp_path / "a.parquet", {"url": URLS}, row_group_size=300)
    config = Config(input=f"{PREFIX}{path}", output="out")
    listing.check_readable(config)
    refs = list(listing.read_refs(config, collections.Counter()))
    assert [ref.url for ref in refs] == URLS


def test_a_file_from_a_pipe(tmp_path):
    data = write(tmp_path / "a.parquet", {"url": URLS[:100]}).read_bytes()
    os.mkfifo(tmp_path / "pipe")
    thread = threading.Thread(target=(tmp_path / "pipe").write_bytes, args=(data,), daemon=True)
    thread.start()
    config = Config(input=str(tmp_path / "pipe"), output="out")
    for _ in range(2):
        refs = listing.read_refs(config, collections.Counter())
        assert [ref.url for ref in refs] == URLS[:100]
    thread.join(10)


# Damage.


def test_rows_without_a_url_fail_alone(tmp_path):
    path = write(tmp_path / "a.parquet", {"id": [1, 2, 3], "url": [None, "", "http://a.example/"]})
    assert read(path) == [
        ImageRef("1", f"{path}#1", problem=Problem("invalid_url", "row 1 has no URL")),
        ImageRef("2", f"{path}#2", problem=Problem("invalid_url", "row 2 has no URL")),
        ImageRef("3", "http://a.example/"),
    ]


def test_a_value_that_is_too_long_fails_alone(tmp_path):
    columns = {"url": ["http://a.example/1.jpg", "x" * 10**6], "id": ["x" * 10**6, ""]}
    refs = read(write(tmp_path / "a.parquet", columns))
    detail = "row {} has a value of more than 65,536 characters"
    assert [ref.problem for ref in refs] == [
        Problem("invalid_url", detail.format(row)) for row in (1, 2)
    ]
    assert all(len(ref.id) + len(ref.url) < 1000 for ref in refs)


def test_a_damaged_row_group_costs_no_other(tmp_path):
    path = write(tmp_path / "a.parquet", {"url": URLS}, row_group_size=500, use_dictionary=False)
    column = pq.ParquetFile(path).metadata.row_group(2).column(0)
    data = bytearray(path.read_bytes())
    data[column.data_page_offset : column.data_page_offset + 200] = b"\xff" * 200
    path.write_bytes(data)
    refs = read(path)
    assert [ref.url for ref in refs if not ref.problem] == URLS[:1000] + URLS[1500:]
    [failed] = [ref for ref in refs if ref.problem]
    assert failed.problem and failed.problem.reason == "corrupt_container"
    assert (failed.url, refs.index(failed)) == (f"{path}#1001", 1000)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"PAR1", "is not a valid Parquet file|cannot be read"),
        (b"PAR1" + bytes(100) + b"PAR1", "is not a valid Parquet file|cannot be read"),
    ],
)
def test_what_is_no_parquet_file_is_refused(tmp_path, data, message):
    (tmp_path / "a.parquet").write_bytes(data)
    with pytest.raises(UsageError, match=rf"a\.parquet ({message})"):
        read(tmp_path / "a.parquet")


def test_a_compressed_file_is_refused(tmp_path):
    path = write(tmp_path / "a.parquet", {"url": URLS})
    path.write_bytes(gzip.compress(path.read_bytes()))
    with pytest.raises(UsageError, match="is a Parquet file that is compressed: unpack it"):
        read(path)


@pytest.mark.parametrize(
    "columns",
    [
        {"image": [{"bytes": b"\xff\xd8", "path": "a.jpg"}], "label": [1]},
        {"picture": [{"bytes": b"\xff\xd8", "path": "a.jpg"}]},
        {"image": [b"\xff\xd8"]},
    ],
    ids=["struct", "struct-of-another-name", "binary"],
)
def test_a_file_of_images_is_refused(tmp_path, columns):
    path = write(tmp_path / "a.parquet", columns)
    with pytest.raises(UsageError, match="is a Parquet file of images: give it as --images"):
        read(path)


def test_a_file_without_urls_is_refused(tmp_path):
    path = write(tmp_path / "a.parquet", {"a": [1], "b": [2]})
    with pytest.raises(UsageError, match=r"no column called url.*its columns are a, b"):
        read(path)
    with pytest.raises(UsageError, match="no column called --url_column c: its columns are a, b"):
        read(path, url_column="c")


def make_table() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        columns = {"url": URLS[:40], "id": list(range(40)), "x": [{"a": [1.5, None]}] * 40}
        return write(Path(folder) / "a.parquet", columns, row_group_size=20).read_bytes()


TABLE = make_table()


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, len(TABLE) - 1), st.binary(max_size=6)), max_size=4),
    st.sampled_from([None, 4, len(TABLE) // 2, len(TABLE) - 8]),
    st.sampled_from([{}, {"keep_columns": "x"}]),
)
def test_any_damage_is_rows_problems_or_an_error(changes, end, options):
    data = bytearray(TABLE)
    for start, change in changes:
        data[start : start + len(change)] = change
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.parquet"
        path.write_bytes(b"PAR1" + data[4:end])
        try:
            refs = read(path, **options)
        except UsageError as error:
            assert str(path) in str(error) and len(str(error)) < 1000
            return
    assert len(refs) <= 1000
    for ref in refs:
        assert ref.name and ref.url.encode() and ref.id.encode() is not None
