"""Parquet files with a column of URLs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from beam_pipeline.config import Config, UsageError
from beam_pipeline.elements import ImageRef
from beam_pipeline.sources import columns, opening

MAGIC = b"PAR1"
_BATCH = 1_000  # rows
# Exceptions of values that Python cannot represent, such as a date after the year 9999.
_UNCONVERTIBLE = (ValueError, OverflowError, KeyError, NotImplementedError, TypeError)
_BUFFER = 1 << 20  # bytes of a column that are read at a time


def recognizes(path: str, head: bytes) -> bool:
    return head.startswith(MAGIC)


def read_refs(path: str, config: Config) -> Iterator[ImageRef]:
    """Yield the images of the rows. Only the columns in use are read, some rows at a time.

    A damaged row group costs its remaining rows, which one image with a `problem` represents.

    Raises:
      UsageError: The file cannot be read, or has no column of URLs.
    """
    with opening.naming_errors(path), opening.open_stored(path, config) as file:
        if file.read(len(MAGIC)) != MAGIC:
            raise UsageError(f"{path} is a Parquet file that is compressed: unpack it")
        try:
            table = pq.ParquetFile(file, buffer_size=_BUFFER)
            schema, groups = table.schema_arrow, table.num_row_groups
        except pa.ArrowException as error:
            raise UsageError(f"{path} is not a valid Parquet file: {str(error)[:300]}") from error
        found = _resolve(path, schema, config)
        end = 0
        for group in range(groups):
            start, end = end, end + table.metadata.row_group(group).num_rows
            yield from _read_group(path, table, group, start, found)


def _resolve(path: str, schema: pa.Schema, config: Config) -> columns.Columns:
    names = schema.names
    if (
        config.url_column is None
        and not columns.has_url(names, config)
        and any(_is_image(field, config) for field in schema)
    ):
        raise UsageError(f"{path} is a Parquet file of images: give it as --images")
    return columns.resolve(path, names, config)


def _is_image(field: pa.Field, config: Config) -> bool:
    """Return whether a column holds images: Hugging Face's struct, or binary."""
    if pa.types.is_struct(field.type):
        return field.type.get_field_index("bytes") >= 0
    is_binary = pa.types.is_binary(field.type) or pa.types.is_large_binary(field.type)
    return is_binary and field.name == config.image_column


def _read_group(
    path: str, table: pq.ParquetFile, group: int, start: int, found: columns.Columns
) -> Iterator[ImageRef]:
    row = start
    try:
        for batch in table.iter_batches(
            _BATCH, row_groups=[group], columns=found.names, use_threads=False
        ):
            values = [_to_python(batch.column(name)) for name in found.names]
            for fields in zip(*values, strict=True):
                row += 1
                yield columns.make_ref(
                    path, row, found, dict(zip(found.names, fields, strict=True))
                )
    except (OSError, pa.ArrowException, KeyError) as error:
        # Arrow raises damage as a plain OSError without a number; a filesystem's error has one.
        if isinstance(error, OSError) and (type(error) is not OSError or error.errno is not None):
            raise
        problem = f"damage up to the end of its row group, {group}: {str(error)[:300]}"
        yield columns.failed_row(path, row + 1, problem, reason="corrupt_container")


def _to_python(column: pa.Array) -> list[Any]:
    """Return the values of a column; text as bytes, because it may not be valid UTF-8."""
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    kind = column.type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        column = column.cast(pa.large_binary())
    try:
        return column.to_pylist()
    except _UNCONVERTIBLE:
        return [_value(scalar) for scalar in column]


def _value(scalar: pa.Scalar) -> Any:
    try:
        return scalar.as_py()
    except _UNCONVERTIBLE:
        return None
