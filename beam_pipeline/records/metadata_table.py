"""The rows of `metadata-*.parquet`: one for each example, in the order of the records.

Pure.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

import pyarrow as pa

from beam_pipeline.elements import EmbeddedImage, as_text
from beam_pipeline.images import perceptual_hash
from beam_pipeline.images.measures import Measures
from beam_pipeline.records import example_codec
from beam_pipeline.redaction import redact

# The column of each feature of a record that is repeated in the row.
FEATURES = {
    "image_name": "name",
    "image_url": "url",
    "image_id": "id",
    "image_class": "class",
    "original_width": "original_width",
    "original_height": "original_height",
    **{name: name for name in Measures._fields},
}
# Where the record is.
_PLACE = (
    ("split", pa.string()),
    ("shard", pa.string()),
    ("index", pa.int64()),
    ("offset", pa.int64()),
)
_COLUMNS = (
    ("name", pa.string()),
    ("url", pa.string()),
    ("id", pa.string()),
    ("class", pa.string()),
    *_PLACE,
    ("original_width", pa.int64()),
    ("original_height", pa.int64()),
    *((name, pa.float32()) for name in Measures._fields),
    ("pdq", pa.binary(perceptual_hash.HASH_BYTES)),
    ("pdq_quality", pa.int64()),
    ("sha256", pa.string()),
    ("final_url", pa.string()),
    ("image_source", pa.string()),
)


# What each column holds.
MEANINGS = {
    "name": "md5(url).jpeg, the key of the image",
    "url": "the URL, the file's path, or PATH#MEMBER for an image in a container",
    "id": "the line's ID or the file's stem, empty if there is none",
    "class": "name of the class, empty if unknown",
    "split": "train or validation",
    "shard": "file name of the shard",
    "index": "index of the record in the shard, from 0",
    "offset": "position of the record, with its framing, in the shard, bytes",
    "original_width": "width of the image before it was resized, upright, pixels",
    "original_height": "height of the image before it was resized, upright, pixels",
    **example_codec.MEANINGS,
    "pdq": "PDQ hash of the image without padding, 32 bytes; null if it was not computed",
    "pdq_quality": "quality of the hash, 0 to 100; null if it was not computed",
    "sha256": "of the image file, in hex; null if it is not known",
    "final_url": "URL after redirects, or path of the file; null if an earlier run kept the image",
    "image_source": "origin or fallback; null if an earlier run kept the image",
}


def kept_meanings(kept: Sequence[str]) -> dict[str, str]:
    """Return what each column of `--keep_columns` holds."""
    return {
        column: f"{name} of the source; a value that is no string as JSON"
        for column, name in zip(kept_names(kept), kept, strict=True)
    }


def make_schema(kept: Sequence[str] = ()) -> pa.Schema:
    """Return the schema of the files.

    Args:
      kept: The names in `--keep_columns`. A name of another column gets the prefix `kept_`.
    """
    columns = dict(_COLUMNS)
    for name in kept:
        while name in columns:
            name = f"kept_{name}"
        columns[name] = pa.string()
    return pa.schema(list(columns.items()))


def kept_names(kept: Sequence[str]) -> list[str]:
    """Return the columns of the names in `--keep_columns`."""
    return make_schema(kept).names[len(_COLUMNS) :]


def encode_row(image: EmbeddedImage) -> bytes:
    """Return what is known about an example before it is in a shard, as a line of JSON."""
    ref, rgb = image.ref, image.image
    width, height = rgb.original_size
    columns = {
        "name": ref.name,
        "url": ref.url_text,
        "id": as_text(ref.id),
        "class": as_text(ref.image_class),
        "original_width": width,
        "original_height": height,
        **(rgb.measures._asdict() if rgb.measures else dict.fromkeys(Measures._fields)),
        "pdq": rgb.hash.pdq.hex() if rgb.hash else None,
        "pdq_quality": rgb.hash.quality if rgb.hash else None,
        "sha256": rgb.body_sha256 or None,
        "final_url": as_text(redact(rgb.final_url)) or None,
        "image_source": rgb.image_source or None,
    }
    return json.dumps([columns, ref.metadata]).encode() + b"\n"


def make_table(
    rows: Iterable[bytes],
    split: str,
    shard: str,
    offsets: Iterable[int],
    kept: Sequence[str] = (),
) -> pa.Table:
    """Return the rows of a shard, of the schema of `make_schema`.

    Args:
      rows: Results of `encode_row`, in the order of the records.
      split: The split of the shard.
      shard: File name of the shard.
      offsets: Position of each record, and perhaps others.
      kept: The names in `--keep_columns`.
    """
    schema = make_schema(kept)
    fixed = len(schema) - len(kept)
    columns: list[list[Any]] = [[] for _ in schema]
    for index, (row, offset) in enumerate(zip(rows, offsets, strict=False)):
        values, metadata = json.loads(row)
        values["pdq"] = bytes.fromhex(values["pdq"]) if values["pdq"] else None
        values |= {"split": split, "shard": shard, "index": index, "offset": offset}
        for name, column in zip(schema.names[:fixed], columns, strict=False):
            column.append(values[name])
        for value, column in zip(kept_values(metadata, kept), columns[fixed:], strict=True):
            column.append(value)
    arrays = [pa.array(column, kind) for column, kind in zip(columns, schema.types, strict=True)]
    return pa.Table.from_arrays(arrays, schema=schema)


def kept_values(metadata: str, kept: Sequence[str]) -> list[str | None]:
    """Return the values in `image_metadata`: strings as they are, others as JSON."""
    try:
        values = json.loads(metadata) if metadata else {}
        return [_as_string(values.get(name)) for name in kept]
    except RecursionError:  # a deeply nested value
        return [None] * len(kept)


def _as_string(value: Any) -> str | None:
    if value is None:
        return None
    return as_text(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))
