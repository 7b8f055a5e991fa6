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

from beam_pipeline.sources.parquet_headers import parse_extents, parse_page_header
from beam_pipeline.storage import ranges

_BUFFER = 1 << 20  # bytes of a column that are read at once
# Rows that a small file may have; a larger one may have one per byte. No real file has more,
# because an image takes many bytes.
_MIN_ROW_LIMIT = 1 << 20
_HEADER_BYTES = (1 << 16, 1 << 24)  # read for a page header that a read has cut; Arrow's limit


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
