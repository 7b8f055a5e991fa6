"""Tests that a file cannot make a reader hold more than the size of page that is allowed."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from beam_pipeline.sources import parquet_file
from beam_pipeline.sources.parquet_file import open_parquet

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


def test_statistics_longer_than_a_read_are_skipped(tmp_path, monkeypatch):
    monkeypatch.setattr(parquet_file, "_BUFFER", 1000)
    values = [b"x" * 3000] * 3 + [b"y" * 3000]
    path = write(tmp_path / "a.parquet", values, write_statistics=True, use_dictionary=False)
    assert read(path, MIB) == values
