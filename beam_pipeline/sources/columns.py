"""The columns of a table, and the images that its rows name. The text of tables is untrusted."""

from __future__ import annotations

import base64
import binascii
import collections
import contextlib
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from beam_pipeline.config import Config, UsageError, stable_path
from beam_pipeline.elements import ImageRef, Problem
from beam_pipeline.redaction import redact
from beam_pipeline.sources import text_lines

URL_NAMES = ("url", "image_url", "originalurl", "uri")
ID_NAMES = ("id", "image_id", "imageid", "key", "uid", "sample_id")
MAX_VALUE = text_lines.MAX_LINE  # characters
# Longest list of columns in a message, characters.
_MAX_LISTED = 300
ASCII_SPACE = " \t\r\n\v\f"


class Columns(NamedTuple):
    """The names of the columns that are read; None for a column that is not used."""

    url: str
    id: str | None = None
    image_class: str | None = None
    sha256: str | None = None
    md5: str | None = None
    kept: tuple[str, ...] = ()

    @property
    def names(self) -> list[str]:
        """All names, each once."""
        fixed = (self.url, self.id, self.image_class, self.sha256, self.md5)
        return list(dict.fromkeys(name for name in (*fixed, *self.kept) if name is not None))


# Of the `failures-*.jsonl` of a run, whatever the options say about other tables.
FAILURES = Columns("url", "id", "class")


def resolve(path: str, names: Sequence[str], config: Config) -> Columns:
    """Return the columns of a table that the options name, or else the usual ones.

    Args:
      path: The table, for error messages.
      names: The names of its columns; `1`, `2` and so on if it has no header.
      config: The options.

    Raises:
      UsageError: A column does not exist, exists twice, or there is no usual column of URLs, or
        several. The error lists the columns.
    """
    chosen = {
        "url_column": config.url_column,
        "id_column": config.id_column,
        "class_column": config.class_column,
        "sha256_column": config.sha256_column,
        "md5_column": config.md5_column,
    }
    named = [(option, name) for option, name in chosen.items() if name is not None]
    for option, name in [*named, *(("keep_columns", name) for name in config.kept_columns)]:
        if names.count(name) != 1:
            problem = "several columns" if name in names else "no column"
            raise UsageError(f"{path} has {problem} called --{option} {name}: {listed(names)}")
    return Columns(
        config.url_column or _usual_url(path, names),
        config.id_column or _usual_id(names),
        config.class_column,
        config.sha256_column,
        config.md5_column,
        config.kept_columns,
    )


def has_url(names: Sequence[str], config: Config) -> bool:
    """Return whether a table has the column of URLs that the options name, or a usual one."""
    if config.url_column is not None:
        return config.url_column in names
    return any(name.lower() in URL_NAMES for name in names)


def listed(names: Sequence[str]) -> str:
    """Return the names of the columns for a message, as far as they fit."""
    text = ", ".join(name[:_MAX_LISTED] for name in names[:_MAX_LISTED])
    text = text.encode("utf-8", "replace").decode()
    text = "".join(char if char.isprintable() else "?" for char in text)
    is_cut = len(text) > _MAX_LISTED or len(names) > _MAX_LISTED
    return f"its columns are {text[:_MAX_LISTED]}{'...' if is_cut else ''}"


def _usual_url(path: str, names: Sequence[str]) -> str:
    found = [name for name in names if name.lower() in URL_NAMES]
    if len(found) != 1:
        problem = "several columns" if found else "no column"
        raise UsageError(
            f"{path} has {problem} called {', '.join(URL_NAMES[:-1])} or {URL_NAMES[-1]}: give "
            f"--url_column; {listed(names)}"
        )
    return found[0]


def _usual_id(names: Sequence[str]) -> str | None:
    counts = collections.Counter(names)
    by_name = {name.lower(): name for name in names if counts[name] == 1}
    return next((by_name[name] for name in ID_NAMES if name in by_name), None)


def make_ref(path: str, row: int, columns: Columns, values: Mapping[str, Any]) -> ImageRef:
    """Return the image that a row of a table names.

    Args:
      path: The table.
      row: Number of the row, from 1.
      columns: The columns.
      values: The values of the row by column: str, bytes, numbers, or nested ones; a missing one is
        null.

    Returns:
      The image. It has a `problem` if the row has no URL, an invalid digest, or a value that is too
      long.
    """
    try:
        names = (columns.url, columns.id, columns.image_class)
        url, id, image_class = (value_text(values, name) for name in names)
        metadata = kept_json(values, columns.kept) if columns.kept else ""
        digest = _digest(values, columns)
    except (RecursionError, ValueError) as error:
        return failed_row(path, row, f"a value that cannot be stored: {error}")
    if max(map(len, (url, id, image_class, metadata))) > MAX_VALUE:
        return failed_row(path, row, f"a value of more than {MAX_VALUE:,} characters")
    if not url:
        return failed_row(path, row, "no URL", id)
    if digest is None:
        return failed_row(path, row, "an invalid digest", id, "invalid_digest")
    return ImageRef(id, url, image_class=image_class, metadata=metadata, digest=digest)


def failed_row(
    path: str, row: int, problem: str, id: str = "", reason: str = "invalid_url"
) -> ImageRef:
    """Return the image of a row that cannot be used.

    Args:
      path: The table or list.
      row: Number of the row or line, from 1.
      problem: What the row has.
      id: The image's ID.
      reason: A reason of the table in docs/failures.md.
    """
    return ImageRef(id, row_url(path, row), problem=Problem(reason, f"row {row} has {problem}"))


def row_url(path: str, row: int) -> str:
    """Return a name for the image of a row that has no URL, which another row cannot have."""
    return encodable(f"{redact(stable_path(path))}#{row}")


def encodable(text: str) -> str:
    """Return the text with lone surrogates replaced; JSON can contain them, UTF-8 cannot."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


def value_text(values: Mapping[str, Any], name: str | None) -> str:
    """Return a value as text, without the spaces around it; empty for null."""
    value = None if name is None else values.get(name)
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, bytes):
        value = text_lines.to_text(value)
    elif isinstance(value, float) and value.is_integer():
        value = int(value)
    # Latin-1 has other spaces, which occur in URLs.
    return encodable(str(value)).strip(ASCII_SPACE)


def kept_json(values: Mapping[str, Any], names: Sequence[str]) -> str:
    """Return the values of columns as a compact JSON object, with null for NaN and infinity."""
    kept = {name: values.get(name) for name in names}
    text = _dump(kept)
    if "NaN" in text or "Infinity" in text:
        text = _dump(json.loads(text, parse_constant=lambda _: None))
    return encodable(text)


def _dump(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=_jsonable)


def _jsonable(value: Any) -> str:
    return text_lines.to_text(value) if isinstance(value, bytes) else str(value)


def _digest(values: Mapping[str, Any], columns: Columns) -> str | None:
    """Return the digest of a row as `sha256:HEX` or `md5:HEX`; empty if none, None if invalid."""
    for algorithm, size, column in (("sha256", 32, columns.sha256), ("md5", 16, columns.md5)):
        value = None if column is None else values.get(column)
        if isinstance(value, bytes) and len(value) == size:
            return f"{algorithm}:{value.hex()}"
        if text := value_text(values, column):
            digest = _decode_digest(text, size)
            return None if digest is None else f"{algorithm}:{digest.hex()}"
    return ""


def _decode_digest(text: str, size: int) -> bytes | None:
    """Decode a digest of `size` bytes in hex, or in base64 as OpenImages has it."""
    if len(text) == 2 * size:
        with contextlib.suppress(ValueError):
            return binascii.unhexlify(text)
    with contextlib.suppress(ValueError):
        digest = base64.b64decode(text, validate=True)
        if len(digest) == size:
            return digest
    return None
