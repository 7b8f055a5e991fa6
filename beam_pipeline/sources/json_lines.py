"""Tables of URLs with one JSON object a line, such as the `failures-*.jsonl` of a run."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from beam_pipeline.config import Config, UsageError
from beam_pipeline.elements import ImageRef
from beam_pipeline.sources import columns, paths, text_lines, url_table

ENDINGS = (".jsonl", ".ndjson")
# Stages of failures that a kept body may have caused.
_STAGES_OF_BODIES = ("fetch", "decode")
_DIGEST = re.compile("sha256:[0-9a-f]{64}|md5:[0-9a-f]{32}")
# Number of lines whose keys are the columns of the table, because null values may be left out.
_SAMPLE = 100

# The object of a line; None for a blank line or a comment; the text of any other line.
_Row = dict[str, Any] | str | None


def recognizes(path: str, head: bytes) -> bool:
    ending = paths.ending(path)
    if ending in url_table.ENDINGS:
        return False
    entries = filter(_is_entry, map(text_lines.to_text, head.splitlines()))
    return ending in ENDINGS or next(entries, "").lstrip().startswith("{")


def read_refs(path: str, config: Config) -> Iterator[ImageRef | None]:
    """Yield the images of the lines; None for a blank line, a comment, or another reason.

    Raises:
      UsageError: The file cannot be read to its end, lacks a column, or holds other lines.
    """
    reasons = {reason.strip() for reason in (config.retry_reasons or "").split(",")}
    rows = _read_rows(path, config)
    sample = list(itertools.islice(rows, _SAMPLE))
    objects = [row for row in sample if isinstance(row, dict)]
    if not objects and any(sample):
        raise UsageError(f"{path} holds no JSON objects: none of its first lines is one")
    are_failures = all(row.keys() >= {"url", "stage", "reason"} for row in objects)
    if are_failures:
        _refuse_files(path, objects)
    names = list(dict.fromkeys(itertools.chain(*objects)))
    found = columns.FAILURES if are_failures else columns.resolve(path, names, config)
    for number, row in enumerate(itertools.chain(sample, rows), 1):
        if row is None or (config.retry_reasons and _reason_of(row) not in reasons):
            yield None
        elif isinstance(row, str):
            yield columns.failed_row(path, number, row)
        else:
            ref = columns.make_ref(path, number, found, row)
            yield _restore(ref, row, config) if are_failures and not ref.problem else ref


def _refuse_files(path: str, failures: Sequence[Mapping[str, Any]]) -> None:
    """Raise UsageError for failures of images that were read from files."""
    for row in failures:
        url = row.get("url")
        if row.get("stage") in ("decode", "filter") and isinstance(url, str) and "://" not in url:
            raise UsageError(
                f"{path} lists images that --images has read, such as {url}. Give the same "
                "--images again, and another --output."
            )


def _restore(ref: ImageRef, row: dict[str, Any], config: Config) -> ImageRef:
    """Return the image of a failure with what the first run knew of it."""
    digest, metadata = row.get("digest"), ""
    with contextlib.suppress(ValueError, TypeError, RecursionError):
        known = json.loads(row["metadata"]) if config.kept_columns and "metadata" in row else None
        if isinstance(known, dict):
            metadata = columns.kept_json(known, config.kept_columns)
    return dataclasses.replace(
        ref,
        is_retried=row.get("stage") in _STAGES_OF_BODIES,
        digest=digest if isinstance(digest, str) and _DIGEST.fullmatch(digest) else "",
        metadata=metadata if len(metadata) <= columns.MAX_VALUE else "",
        is_validation={"validation": True, "train": False}.get(str(row.get("split"))),
    )


def read_reasons(path: str, config: Config) -> set[str]:
    """Return the reasons in a list of failures; empty for another table."""
    reasons = map(_reason_of, _read_rows(path, config))
    return {reason for reason in reasons if reason is not None}


def _read_rows(path: str, config: Config) -> Iterator[_Row]:
    for line in text_lines.read_lines(path, config):
        if len(line) > text_lines.MAX_LINE:
            yield f"more than {text_lines.MAX_LINE:,} bytes"
            continue
        text = text_lines.to_text(line)
        if not _is_entry(text):
            yield None
            continue
        try:
            row = json.loads(text)
        except (ValueError, RecursionError) as error:
            yield f"no valid JSON: {error}"
        else:
            yield row if isinstance(row, dict) else "no JSON object"


def _is_entry(text: str) -> bool:
    """Return whether a line is neither blank nor a comment."""
    text = text.strip()
    return bool(text) and not text.startswith("#")


def _reason_of(row: _Row) -> str | None:
    """Return the reason in a line of a `failures-*.jsonl`; None for any other line."""
    reason = row.get("reason") if isinstance(row, dict) else None
    return reason if isinstance(reason, str) else None
