"""Tests of the footer and page headers of Parquet: those of pyarrow, and hostile ones."""

import contextlib
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from beam_pipeline.sources.parquet_headers import parse_extents, parse_page_header

OPTIONS: list[dict[str, Any]] = [
    {},
    {"use_dictionary": False, "compression": "none"},
    {"use_dictionary": False, "compression": "zstd", "data_page_version": "2.0"},
    {"write_page_index": True, "write_page_checksum": True, "row_group_size": 70},
]


def write(path: Path, values: Any, **options) -> str:
    pq.write_table(pa.table({"column": values}), path, **options)
    return str(path)


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
