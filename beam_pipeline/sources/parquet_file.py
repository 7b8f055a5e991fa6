"""Parquet files that are opened with bounds on what they can make a reader do.

A footer of a few bytes can claim billions of rows, and a page, the part of a column that is
compressed as one, can claim to hold 2 GiB. pyarrow believes both.
"""

from __future__ import annotations

import bisect
import contextlib
import io
from collections.abc import Iterable, Iterator
from typing import IO

import pyarrow.parquet as pq

from beam_pipeline.storage import ranges

_BUFFER = 1 << 20  # bytes of a column that are read at once
# Rows that a small file may have; a larger one may have one per byte. No real file has more,
# because an image takes many bytes.
_MIN_ROW_LIMIT = 1 << 20
_HEADER_BYTES = (1 << 16, 1 << 24)  # read for a page header that a read has cut; Arrow's limit
_MAX_DEPTH = 16  # of structs and lists; the format has 8
# Types of Thrift's compact protocol.
_BOOLEANS, _BYTE, _VARINTS, _DOUBLE, _BINARY, _LIST, _STRUCT = (1, 2), 3, (4, 5, 6), 7, 8, 9, 12


@contextlib.contextmanager
def open_parquet(path: str, max_page_bytes: int) -> Iterator[pq.ParquetFile]:
    """Open a Parquet file on any filesystem. Only the parts that are read are requested.

    Args:
      path: The file.
      max_page_bytes: Maximum size of a page that is read, in bytes, decompressed. Reading a larger
        one raises ValueError.

    Raises:
      OSError: The file cannot be opened. The error names the path.
      pyarrow.ArrowException, ValueError: The file is damaged.
    """
    with ranges.open_seekable(path) as raw:
        file = _CheckedFile(raw, max_page_bytes)
        with pq.ParquetFile(
            file, buffer_size=_BUFFER, pre_buffer=False, arrow_extensions_enabled=False
        ) as parquet:
            _check_rows(parquet.metadata, raw.seek(0, io.SEEK_END))
            file.check_pages(_read_extents(raw))
            yield parquet


def _check_rows(metadata: pq.FileMetaData, size: int) -> None:
    """Raise ValueError if a footer claims more rows than a file of `size` bytes can have."""
    counts = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
    if min(counts, default=0) < 0 or sum(counts) > max(_MIN_ROW_LIMIT, size):
        raise ValueError(f"its footer claims {sum(counts):,} rows in {size:,} bytes")


class _CheckedFile(io.RawIOBase):
    """A file that checks the size of each page before pyarrow sees its header."""

    def __init__(self, file: IO[bytes], max_page_bytes: int):
        self._file, self._max_page_bytes = file, max_page_bytes
        # Of the chunks of columns, each the pages of a column in a row group.
        self._starts: list[int] = []
        self._ends: list[int] = []
        self._headers: list[int] = []  # positions of the next page headers

    def check_pages(self, extents: Iterable[tuple[int, int]]) -> None:
        """Check the pages that are read from now on.

        Args:
          extents: The position and size of each chunk, in bytes.

        Raises:
          ValueError: The chunks of two columns overlap.
        """
        extents = sorted(extents)
        end = 0
        for start, size in extents:
            if start < end or size < 0:
                raise ValueError("its columns overlap")
            end = start + size
        self._starts = [start for start, size in extents if size]
        self._ends = [start + size for start, size in extents if size]
        self._headers = list(self._starts)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def read(self, size: int | None = -1) -> bytes:
        start = self._file.tell()
        data = self._file.read(-1 if size is None else size)
        chunk = bisect.bisect_right(self._starts, start) - 1
        if chunk >= 0:
            self._check(chunk, start, data)
        return data

    def _check(self, chunk: int, start: int, data: bytes) -> None:
        """Check the pages whose headers begin in `data`, which lies at `start`."""
        end = min(start + len(data), self._ends[chunk])
        while self._headers[chunk] < end:
            position = self._headers[chunk]
            header = data[position - start :][: 1 << 10] if position >= start else b""
            size, stored, length = self._parse(header, position)
            self._file.seek(start + len(data))
            if size > self._max_page_bytes:
                raise ValueError(
                    f"a page of {size:,} bytes, more than {self._max_page_bytes:,}: write the file "
                    "with smaller pages"
                )
            self._headers[chunk] = position + length + stored

    def _parse(self, header: bytes, position: int) -> tuple[int, int, int]:
        """Parse a page header at a position; read it if `header` has only its beginning."""
        for size in _HEADER_BYTES:
            with contextlib.suppress(IndexError):
                return parse_page_header(header)
            self._file.seek(position)
            header = self._file.read(size)
        with contextlib.suppress(IndexError):
            return parse_page_header(header)
        raise ValueError("a page header is damaged")


def _read_extents(file: IO[bytes]) -> list[tuple[int, int]]:
    """Return the position and size of each chunk of a Parquet file, in bytes.

    pyarrow aborts the process when it is asked for a chunk that the footer describes wrongly.

    Raises:
      ValueError: The footer is damaged.
    """
    end = file.seek(-8, io.SEEK_END)
    size = int.from_bytes(file.read(4), "little")
    file.seek(max(0, end - size))
    try:
        return list(parse_extents(file.read(min(size, end))))
    except IndexError as error:
        raise ValueError("its footer is damaged") from error


def parse_extents(footer: bytes) -> Iterator[tuple[int, int]]:
    """Parse a Parquet FileMetaData, in Thrift's compact protocol.

    Yields:
      The position and size of the chunk of each column in each row group that has rows.

    Raises:
      IndexError, ValueError: The footer is damaged.
    """
    for groups in _values(footer, 0, 4, _LIST):
        for group in _elements(footer, groups):
            rows = [_parse_integer(footer, value) for value in _values(footer, group, 3)]
            for chunks in _values(footer, group, 1, _LIST) if any(rows) else ():
                for chunk in _elements(footer, chunks):
                    for metadata in _values(footer, chunk, 3, _STRUCT):
                        yield _parse_extent(footer, metadata)


def _parse_extent(footer: bytes, metadata: int) -> tuple[int, int]:
    """Parse the position and size of a chunk from the ColumnMetaData at a position."""
    numbers = {
        field: [_parse_integer(footer, value) for value in _values(footer, metadata, field)]
        for field in (7, 9, 11)  # total_compressed_size, data_page_offset, dictionary_page_offset
    }
    if not (numbers[7] and numbers[9]):
        raise ValueError("its footer is damaged")
    start, dictionary = numbers[9][-1], (numbers[11] or [0])[-1]
    return dictionary if 0 < dictionary < start else start, numbers[7][-1]


def _values(data: bytes, position: int, wanted: int, type_: int | None = None) -> Iterator[int]:
    """Yield the position of the value of a field in the struct at a position, if it is there.

    Args:
      data: A message.
      position: Position of the struct.
      wanted: Number of the field.
      type_: Type that it must have; None for an integer.

    Raises:
      ValueError: It has another type.
    """
    field = 0
    while data[position]:
        field, found, position = _parse_field(data, position, field)
        if field == wanted:
            if found not in (_VARINTS if type_ is None else (type_,)):
                raise ValueError("its footer is damaged")
            yield position
        position = _skip(data, position, found)


def _elements(data: bytes, position: int) -> Iterator[int]:
    """Yield the positions of the elements of the list of structs at a position.

    Raises:
      ValueError: They are not structs.
    """
    count, type_, position = _parse_list(data, position)
    if count and type_ != _STRUCT:
        raise ValueError("its footer is damaged")
    for _ in range(count):
        yield position
        position = _skip(data, position, type_)


def _parse_list(data: bytes, position: int) -> tuple[int, int, int]:
    """Parse the beginning of a list: return its length, type and the position of its elements."""
    count, type_ = data[position] >> 4, data[position] & 15
    if count < 15:
        return count, type_, position + 1
    count, position = _parse_varint(data, position + 1)
    return count, type_, position


def _parse_integer(data: bytes, position: int) -> int:
    number = _parse_varint(data, position)[0]
    return number >> 1 ^ -(number & 1)


def parse_page_header(data: bytes) -> tuple[int, int, int]:
    """Parse a Parquet PageHeader, in Thrift's compact protocol.

    Returns:
      The size of the page, decompressed; its size as it is stored; and the size of the header, in
      bytes.

    Raises:
      IndexError: The header is longer than `data`.
      ValueError: The header is invalid.
    """
    sizes = {}
    field = position = 0
    while data[position]:
        field, type_, position = _parse_field(data, position, field)
        end = _skip(data, position, type_)
        if field in (2, 3) and type_ in _VARINTS:
            sizes[field] = _parse_integer(data, position)
        position = end
    if min(sizes.get(2, -1), sizes.get(3, -1)) < 0:
        raise ValueError("a page header is damaged")
    return sizes[2], sizes[3], position + 1


def _parse_field(data: bytes, position: int, field: int) -> tuple[int, int, int]:
    """Parse the beginning of a field: return its number, type and the position of its value."""
    delta, type_ = data[position] >> 4, data[position] & 15
    if delta:
        return field + delta, type_, position + 1
    return _parse_integer(data, position + 1), type_, _parse_varint(data, position + 1)[1]


def _parse_varint(data: bytes, position: int) -> tuple[int, int]:
    number = shift = 0
    while True:
        byte = data[position]
        position += 1
        number |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            return number, position
        if shift > 63:
            raise ValueError("a page header is damaged")


def _skip(data: bytes, position: int, type_: int, depth: int = 0) -> int:
    """Return the position behind a value."""
    if depth > _MAX_DEPTH:
        raise ValueError("a page header is damaged")
    if type_ in _BOOLEANS:
        return position
    if type_ in (_BYTE, _DOUBLE):
        return position + (1 if type_ == _BYTE else 8)
    if type_ in _VARINTS:
        return _parse_varint(data, position)[1]
    if type_ == _BINARY:
        size, position = _parse_varint(data, position)
        return position + size
    if type_ == _STRUCT:
        while data[position]:
            _, inner, position = _parse_field(data, position, 0)
            position = _skip(data, position, inner, depth + 1)
        return position + 1
    if type_ == _LIST:
        count, inner, position = _parse_list(data, position)
        for _ in range(count):
            # In a list, a boolean takes a byte.
            inner = _BYTE if inner in _BOOLEANS else inner
            position = _skip(data, position, inner, depth + 1)
            data[position - 1]  # a list cannot be longer than the message
        return position
    raise ValueError("a header is damaged")  # the format has no sets and maps
