"""Parquet files with a column of images, as Hugging Face's datasets have it.

An image is a struct of `bytes` and `path`, or binary. Images are listed without reading their
bytes, and read row group by row group, one row at a time.
"""

from __future__ import annotations

import collections
import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from apache_beam.io.filesystem import BeamIOError

from beam_pipeline.config import Config, UsageError
from beam_pipeline.elements import ImageRef, Problem, Row
from beam_pipeline.sources.parquet_columns import as_text, find_columns, make_ref, shown
from beam_pipeline.sources.parquet_file import open_parquet
from beam_pipeline.sources.source import member_ref

_MAGICS = (b"PAR1", b"PARE")  # PARE: its footer is encrypted
# Sizes of pages, the parts of a column that are compressed as one. Most writers make pages of about
# 1 MiB; Arrow's of binary columns have up to 1,024 rows.
_MAX_IMAGE_PAGE = 512 * 2**20
_MAX_LISTED_PAGE = 64 * 2**20
# Rows of names and labels that are decoded at once. Each may repeat a value as large as a page.
_LISTED_ROWS = 16
# Exceptions of pyarrow, Python and storage for a damaged file.
_DAMAGE = (pa.ArrowException, OSError, ValueError, ArithmeticError, LookupError, BeamIOError)


def recognizes(path: str, head: bytes) -> bool:
    return head.startswith(_MAGICS)


def read_refs(path: str, config: Config) -> Iterator[ImageRef | None]:
    """Yield the images of a Parquet file, in order, without reading their bytes.

    Whether a row holds an image is only known when it is read.

    Raises:
      UsageError: The file cannot be read, or lacks a column that the options name.
    """
    with contextlib.ExitStack() as stack:
        try:
            file = stack.enter_context(open_parquet(path, _MAX_LISTED_PAGE))
            columns = find_columns(file.schema_arrow, path, config)
        except _DAMAGE as error:
            raise UsageError(
                f"{path} cannot be read as Parquet: {_message(error)}; it may be incomplete"
            ) from error
        first = 0
        for group in range(file.num_row_groups):
            position, count = 0, file.metadata.row_group(group).num_rows
            try:
                for values in _read_rows(file, group, count, columns.listed):
                    location = Row(path, group, position)
                    yield make_ref(location, first + position, values, columns)
                    position += 1
            except _DAMAGE as error:
                problem = Problem("corrupt_container", f"row group {group}: {_message(error)}")
                yield member_ref(path, str(first + position), id="", problem=problem)
                return
            first += count


def read_group(
    refs: Sequence[ImageRef], config: Config
) -> Iterator[tuple[ImageRef, bytes | Problem]]:
    """Read images of one row group, one at a time.

    Memory holds one image and one page of each column. Pages over 512 MiB are refused.

    Args:
      refs: Images with a `Row` in one row group, in the order of their rows.
      config: The options.

    Yields:
      Each image with its bytes, or the reason why it has none. Damage affects all later images.
    """
    pending = collections.deque(refs)
    location = pending[0].location
    assert isinstance(location, Row)
    try:
        for position, value in enumerate(_read_images(location, config.image_column)):
            while pending and _position(pending[0]) == position:
                ref = pending.popleft()
                yield ref, _check_image(value, ref, config.max_image_bytes)
            if not pending:
                return
        problem = Problem("corrupt_container", f"row group {location.group} has too few rows")
    except _DAMAGE as error:
        if isinstance(error, OSError) and error.errno is not None:
            problem = Problem("not_found", _message(error))
        else:
            problem = Problem("corrupt_container", f"row group {location.group}: {_message(error)}")
    for ref in pending:
        yield ref, problem


def _read_rows(
    file: pq.ParquetFile, group: int, count: int, columns: list[str]
) -> Iterator[Mapping[str, Any]]:
    """Yield the values of columns of a row group, row by row.

    Raises:
      ValueError: The columns have another number of rows than the row group, `count`.
    """
    if not columns or not count:
        yield from ({} for _ in range(count))
        return
    for batch in file.iter_batches(_LISTED_ROWS, [group], columns, use_threads=False):
        count -= len(batch)
        if count < 0:
            break
        yield from _with_texts(batch).to_pylist()
    if count:
        raise ValueError("its columns differ in their number of rows")


def _with_texts(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Return a batch with its times as text: Python has no nanoseconds."""
    fields = [
        field.with_type(pa.string()) if pa.types.is_timestamp(field.type) else field
        for field in batch.schema
    ]
    return batch.cast(pa.schema(fields)) if fields != list(batch.schema) else batch


def _read_images(location: Row, column: str) -> Iterator[pa.Scalar]:
    """Yield the images of a row group, one by one."""
    with open_parquet(location.path, _MAX_IMAGE_PAGE) as file:
        for batch in file.iter_batches(1, [location.group], [column], use_threads=False):
            yield from batch.column(0)


def _check_image(value: pa.Scalar, ref: ImageRef, max_bytes: int) -> bytes | Problem:
    """Return the bytes of an image, or why it has none.

    Args:
      value: The value of the image column.
      ref: The image.
      max_bytes: Maximum size of an image, in bytes.
    """
    row = ref.url.rpartition("#")[2]
    path = None
    if isinstance(value, pa.StructScalar) and value.is_valid:
        path = value["path"].as_py() if "path" in value else None
        value = value["bytes"]
    if isinstance(value, pa.DictionaryScalar) and value.is_valid:
        value = value.value
    if not value.is_valid and path:
        return Problem("no_image", f"row {row} holds only a path, {shown(as_text(path))}")
    if not value.is_valid:
        return Problem("no_image", f"row {row} is null")
    size = value.as_buffer().size
    if not size:
        return Problem("empty", "an image of 0 bytes")
    if size > max_bytes:
        return Problem("too_large", f"more than the {max_bytes} bytes that are allowed")
    return value.as_py()


def _position(ref: ImageRef) -> int:
    assert isinstance(ref.location, Row)
    return ref.location.position


def _message(error: BaseException) -> str:
    """Return the text of an error, on one line."""
    return " ".join(str(error).split()) or type(error).__name__
