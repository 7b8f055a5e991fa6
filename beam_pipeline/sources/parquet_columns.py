"""Columns of a Parquet file of images: which are listed, and what their values mean.

Hugging Face's datasets keep the names of classes in the metadata of the file's schema.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from beam_pipeline.config import Config, UsageError
from beam_pipeline.elements import ImageRef, Row
from beam_pipeline.sources.columns import URL_NAMES
from beam_pipeline.sources.source import member_ref

_LABEL = "label"
_MAX_SHOWN = 40  # column names in an error message, and characters of each


@dataclasses.dataclass(frozen=True)
class Columns:
    """The columns that are listed.

    Attributes:
      image: Column of the images.
      has_path: Whether the field `path` of the images gives the IDs.
      label: Column of the classes; None if there is none.
      id: Column of the IDs; None without `--id_column`.
      kept: Columns of the metadata.
      classes: Names of the classes by their number; empty if they have none.
    """

    image: str
    has_path: bool
    label: str | None
    id: str | None
    kept: tuple[str, ...]
    classes: Sequence[str]

    @property
    def listed(self) -> list[str]:
        """The columns to read, in pyarrow's spelling."""
        names = [name for name in (self.label, self.id, *self.kept) if name is not None]
        return list(dict.fromkeys([f"{self.image}.path"] * self.has_path + names))


def find_columns(schema: pa.Schema, path: str, config: Config) -> Columns:
    """Return the columns that the options name.

    Args:
      schema: The schema of the file.
      path: The file, for error messages.
      config: The options.

    Raises:
      UsageError: There are no such columns.
    """
    image = config.image_column
    if image not in schema.names:
        raise _no_column(path, "image column", image, "--image_column", schema)
    type_ = schema.field(image).type
    fields = {field.name: field.type for field in type_} if pa.types.is_struct(type_) else {}
    if not _is_binary(fields.get("bytes", type_)):
        raise UsageError(
            f"{path}: its column `{shown(image)}` holds {shown(str(type_))}, not images: give as "
            "--image_column one of binary, or of structs of `bytes` and `path`"
        )
    named = [("--id_column", config.id_column), ("--class_column", config.class_column)]
    for option, name in [*named, *(("--keep_columns", name) for name in config.kept_columns)]:
        if name is None:
            continue
        if name == image:
            raise UsageError(f"{path}: give {option} another than the images, `{shown(image)}`")
        if schema.names.count(name) != 1:
            raise _no_column(path, "column", name, option, schema)
    label = config.class_column or (_LABEL if schema.names.count(_LABEL) == 1 else None)
    return Columns(
        image,
        "path" in fields and config.id_column is None,
        label,
        config.id_column,
        config.kept_columns,
        _class_names(schema.metadata or {}, label),
    )


def _is_binary(type_: pa.DataType) -> bool:
    if pa.types.is_dictionary(type_):
        type_ = type_.value_type
    return (
        pa.types.is_binary(type_)
        or pa.types.is_large_binary(type_)
        or pa.types.is_binary_view(type_)
        or pa.types.is_fixed_size_binary(type_)
    )


def _no_column(path: str, kind: str, name: str, option: str, schema: pa.Schema) -> UsageError:
    names = schema.names
    known = ", ".join(shown(known) for known in names[:_MAX_SHOWN]) or "none"
    advice = f"give {option}"
    if kind == "image column" and any(known.lower() in URL_NAMES for known in names):
        advice = "if it is a table of URLs, give it as --input"
    return UsageError(f"{path} has no {kind} `{name}`: its columns are {known}; {advice}")


def _class_names(metadata: Mapping[bytes, bytes], label: str | None) -> Sequence[str]:
    """Return the names of a ClassLabel feature in Hugging Face's metadata; none if it has none."""
    try:
        names = json.loads(metadata[b"huggingface"])["info"]["features"][label]["names"]
    except (LookupError, ValueError, TypeError, RecursionError):
        return ()
    is_valid = isinstance(names, list) and all(isinstance(name, str) for name in names)
    return [_encodable(name) for name in names] if is_valid else ()


def make_ref(location: Row, row: int, values: Mapping[str, Any], columns: Columns) -> ImageRef:
    """Return the image of a row.

    Args:
      location: Where the image is.
      row: Index of the row in the file.
      values: The values of the columns that are listed.
      columns: Describes them.
    """
    if columns.id is not None:
        id = as_text(values[columns.id])
    else:
        name = as_text((values.get(columns.image) or {}).get("path")).rpartition("/")[2]
        id = name.rpartition(".")[0] or name
    kept = {name: _as_json(values[name]) for name in columns.kept}
    return member_ref(
        location.path,
        str(row),
        id=id,
        location=location,
        image_class="" if columns.label is None else _class_of(values[columns.label], columns),
        metadata=json.dumps(kept, ensure_ascii=False, separators=(",", ":")) if kept else "",
    )


def _class_of(label: object, columns: Columns) -> str:
    """Return the class of a label: its name, if it is a number that has one; empty if unknown."""
    if not isinstance(label, int):
        return as_text(label) if isinstance(label, (str, bytes)) else ""
    if label < 0 or (columns.classes and label >= len(columns.classes)):
        return ""
    return columns.classes[label] if columns.classes else str(label)


def as_text(value: object) -> str:
    """Return a value of a column as text; empty if it is null."""
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    return "" if value is None else str(value)


def _as_json(value: Any) -> Any:
    """Return a value of a column in a form that JSON has."""
    if isinstance(value, dict):
        return {as_text(key): _as_json(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_as_json(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if value is None or isinstance(value, (int, float)) else as_text(value)


def shown(text: str) -> str:
    """Return text of a file for a message: printable and not long."""
    text = "".join(character if character.isprintable() else "?" for character in text)
    return text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}..."


def _encodable(text: str) -> str:
    """Return the text with lone surrogates replaced; JSON can contain them, UTF-8 cannot."""
    return text.encode("utf-8", "replace").decode()
