"""Tests that a file cannot make a reader hold more than the size of page that is allowed."""

import contextlib
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from beam_pipeline.sources import parquet_file
from beam_pipeline.sources.parquet_file import open_parquet, parse_extents, parse_page_header

MIB = 2**20


def write(path: Path, values: Any, **options) -> str:
    pq.write_table(pa.table({"column": values}), path, **options)
    return str(path)


def read(path: str, max_page_bytes: int) -> list[Any]:
    with open_parquet(path, max_page_bytes) as file:
        return [
            value
            for group in range(file.num_row_groups)
            for batch in file.iter_batches(10, [group], use_threads=False)
            for value in batch.column(0).to_pylist()
        ]


OPTIONS: list[dict[str, Any]] = [
    {},
    {"use_dictionary": False, "compression": "none"},
    {"use_dictionary": False, "compression": "zstd", "data_page_version": "2.0"},
    {"write_page_index": True, "write_page_checksum": True, "row_group_size": 70},
]


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("buffer", [1 << 20, 1000])
def test_pages_of_every_kind_are_followed(tmp_path, monkeypatch, options, buffer):
    """Small buffers cut most headers."""
    monkeypatch.setattr(parquet_file, "_BUFFER", buffer)
    values = [bytes([number]) * 997 for number in range(200)]
    path = write(tmp_path / "a.parquet", values, data_page_size=5000, write_batch_size=1, **options)
    seen = []
    parse = parquet_file.parse_page_header

    def note(data: bytes) -> tuple[int, int, int]:
        seen.append(parse(data))
        return seen[-1]

    monkeypatch.setattr(parquet_file, "parse_page_header", note)
    assert read(path, MIB) == values
    metadata = pq.ParquetFile(path).metadata
    chunks = [metadata.row_group(group).column(0) for group in range(metadata.num_row_groups)]
    # The headers that were parsed account for all bytes of the column.
    assert sum(stored + length for _, stored, length in seen) == sum(
        chunk.total_compressed_size for chunk in chunks
    )
    assert sum(size + length for size, _, length in seen) == sum(
        chunk.total_uncompressed_size for chunk in chunks
    )
    largest = max(size for size, _, _ in seen)
    assert read(path, largest) == values
    with pytest.raises(ValueError, match=f"a page of {largest:,} bytes"):
        read(path, largest - 1)


@pytest.mark.parametrize("compression", ["zstd", "gzip", "snappy"])
def test_a_page_that_would_fill_the_memory_is_never_decompressed(tmp_path, compression):
    values = pa.array([bytes(MIB)] * 100)
    path = write(tmp_path / "a.parquet", values, compression=compression, use_dictionary=False)
    before = pa.default_memory_pool().max_memory()
    del values
    with pytest.raises(ValueError, match="more than 1,048,576: write the file with smaller pages"):
        read(path, MIB)
    assert pa.default_memory_pool().max_memory() == before
    assert pa.total_allocated_bytes() < 200 * MIB


def test_files_of_no_rows(tmp_path):
    assert read(write(tmp_path / "a.parquet", pa.array([], pa.binary())), MIB) == []


@given(st.binary(max_size=60))
def test_headers_of_any_bytes(data):
    with contextlib.suppress(IndexError, ValueError):
        size, stored, length = parse_page_header(data)
        assert size >= 0 and stored >= 0 and 0 < length <= len(data)


def read_footer(path: str) -> bytes:
    data = Path(path).read_bytes()
    return data[-8 - int.from_bytes(data[-8:-4], "little") : -8]


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("rows", [1, 200])
def test_extents_are_those_of_pyarrow(tmp_path, options, rows):
    columns = {
        name: [f"{name}{number % 7}" * 50 for number in range(rows)] for name in map(str, range(20))
    }
    path = str(tmp_path / "a.parquet")
    pq.write_table(pa.table(columns), path, **options)
    metadata = pq.ParquetFile(path).metadata
    chunks = [
        metadata.row_group(group).column(column)
        for group in range(metadata.num_row_groups)
        for column in range(metadata.num_columns)
    ]
    assert list(parse_extents(read_footer(path))) == [
        (chunk.dictionary_page_offset or chunk.data_page_offset, chunk.total_compressed_size)
        for chunk in chunks
    ]


@given(st.binary(max_size=60))
def test_footers_of_any_bytes(data):
    with contextlib.suppress(IndexError, ValueError):
        list(parse_extents(data))


@given(st.data())
def test_a_damaged_footer(tmp_path_factory, data):
    path = write(tmp_path_factory.getbasetemp() / "footer.parquet", [b"x"] * 20, row_group_size=5)
    footer = bytearray(read_footer(path))
    for position in data.draw(st.lists(st.integers(0, len(footer) - 1), max_size=4)):
        footer[position] = data.draw(st.integers(0, 255))
    with contextlib.suppress(IndexError, ValueError):
        list(parse_extents(bytes(footer)))


@pytest.mark.parametrize("element", [1, 3, 5, 8, 9, 12])
def test_a_list_that_claims_billions_of_elements_is_refused(element):
    header = bytes([0xF0 | element]) + b"\xff\xff\xff\xff\x0f"
    for field in (b"\x19", b"\x49"):
        with pytest.raises((IndexError, ValueError)):
            list(parse_extents(field + header))


def test_deep_and_endless_headers_are_refused():
    for data in (b"\x1c" * 1000, b"\x15" + b"\xff" * 1000, b"\x19" * 1000):
        with pytest.raises((IndexError, ValueError)):
            parse_page_header(data)


def test_statistics_longer_than_a_read_are_skipped(tmp_path, monkeypatch):
    monkeypatch.setattr(parquet_file, "_BUFFER", 1000)
    values = [b"x" * 3000] * 3 + [b"y" * 3000]
    path = write(tmp_path / "a.parquet", values, write_statistics=True, use_dictionary=False)
    assert read(path, MIB) == values
