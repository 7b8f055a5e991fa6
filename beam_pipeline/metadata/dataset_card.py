"""The dataset card, `README.md`, with the YAML head of Hugging Face. Pure.

It states facts of the run only. A later run does not replace a card that a person has edited, for
example to add a licence.
"""

from __future__ import annotations

import html
import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from beam_pipeline import naming
from beam_pipeline.dataset_info import DatasetInfo
from beam_pipeline.process.plurals import count
from beam_pipeline.records import metadata_table

# Upper bounds of Hugging Face's size categories.
_SIZES = (
    *((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (10**6, "100K<n<1M")),
    *((10**7, "1M<n<10M"), (10**8, "10M<n<100M"), (10**9, "100M<n<1B")),
)


def name_of(info: DatasetInfo) -> str:
    """Return the name of the dataset: that of its folder."""
    return str(info.options.get("output") or "").rstrip("/").rpartition("/")[2] or "dataset"


def describe(info: DatasetInfo, kept: tuple[str, ...]) -> str:
    """Return the content of `README.md`.

    Args:
      info: The content of `dataset.json`.
      kept: The names in `--keep_columns`.
    """
    lines = [*_head(info), "", *_summarize(info), "", *_describe_splits(info), ""]
    lines += ["## Reading it", "", *_explain_reading(info), ""]
    lines += ["## Features of a record", "", *_list_features(info), ""]
    lines += ["## Columns of metadata-*.parquet", "", *_list_columns(kept), ""]
    lines += ["## Where it comes from", "", *_describe_source(info, kept), ""]
    return "\n".join(lines)


def _head(info: DatasetInfo) -> Iterator[str]:
    """Yield the YAML head. JSON strings are YAML strings."""
    size = next((name for limit, name in _SIZES if info.counts.examples < limit), "n>1B")
    yield "---"
    yield f"pretty_name: {json.dumps(name_of(info))}"
    yield f"size_categories: [{json.dumps(size)}]"
    yield "task_categories: [image-to-image]"
    yield "tags: [colorization, tfrecord]"
    yield "configs:"
    yield "- config_name: metadata"
    yield f"  data_files: {naming.METADATA_PREFIX}*.parquet"
    if info.near_duplicates and info.near_duplicates.clusters:
        yield "- config_name: near_duplicates"
        yield f"  data_files: {naming.NEAR_DUPLICATES}"
    yield "---"


def _summarize(info: DatasetInfo) -> Iterator[str]:
    yield f"# {_escape(name_of(info))}"
    yield ""
    yield f"{info.description}: {count(info.counts.examples, 'example')}."


def _describe_splits(info: DatasetInfo) -> Iterator[str]:
    rows = []
    for split in naming.SPLITS:
        files = [file for file in info.files if file.split == split]
        if files:
            examples, size = (sum(getattr(file, of) for file in files) for of in _SUMS)
            rows.append((split, f"{examples:,}", f"{len(files):,}", f"{size:,}"))
    yield from _make_table(("split", "examples", "shards", "bytes"), rows)


_SUMS = ("examples", "bytes")


def _explain_reading(info: DatasetInfo) -> Iterator[str]:
    yield "```python"
    yield "from beam_pipeline import dataset"
    yield ""
    yield f"images = dataset.load({json.dumps(name_of(info))})  # tf.data"
    yield f"images = dataset.examples({json.dumps(name_of(info))})  # NumPy"
    yield "```"
    yield ""
    yield "`croissant.json` describes the tables in the folder for other programs."


def _list_features(info: DatasetInfo) -> Iterator[str]:
    rows = [
        (f"`{name}`", feature.dtype, _format_shape(feature.shape), _escape(feature.meaning))
        for name, feature in info.features.items()
    ]
    yield from _make_table(("feature", "type", "shape", "meaning"), rows)


def _format_shape(shape: Sequence[int]) -> str:
    return f"({', '.join(map(str, shape))})" if shape else "scalar"


def _list_columns(kept: tuple[str, ...]) -> Iterator[str]:
    meanings = {**metadata_table.MEANINGS, **metadata_table.kept_meanings(kept)}
    rows = [
        (_escape(column.name), str(column.type), _escape(meanings[column.name]))
        for column in metadata_table.make_schema(kept)
    ]
    yield from _make_table(("column", "type", "meaning"), rows)


def _describe_source(info: DatasetInfo, kept: tuple[str, ...]) -> Iterator[str]:
    counts = info.counts
    noun = "line" if info.options.get("input") else "image"
    source = info.options.get("input") or info.options.get("images") or ""
    yield (
        f"Made by beam_pipeline {info.versions.get('beam_pipeline', '')} from "
        f"{_escape(str(source))}: {count(counts.lines, noun)}, {counts.ignored:,} ignored, "
        f"{count(counts.duplicates, 'duplicate')}, {count(counts.failures, 'failure')}."
    )
    if counts.failures_by_reason:
        yield ""
        reasons = sorted(counts.failures_by_reason.items(), key=lambda item: (-item[1], item[0]))
        yield from _make_table(
            ("failure", "images"), [(_escape(reason), f"{number:,}") for reason, number in reasons]
        )
    if info.near_duplicates:
        yield ""
        yield f"{info.near_duplicates.describe().capitalize()}."
    yield ""
    licences = [name for name in kept if name.lower().startswith(("license", "licence"))]
    if licences:
        names = ", ".join(map(_escape, licences))
        yield f"The column {names} has the licence of each image, as the source states it."
    else:
        yield "The run kept no column with licences of the images (`--keep_columns`)."
    yield ""
    options = {name: value for name, value in info.options.items() if value not in (None, False)}
    yield from _make_table(
        ("option", "value"),
        [(f"`--{name}`", _escape(_format_option(value))) for name, value in options.items()],
    )


def _format_option(value: Any) -> str:
    return "on" if value is True else str(value)


def _make_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield f"| {' | '.join('---' for _ in head)} |"
    for row in rows:
        yield f"| {' | '.join(row)} |"


def _escape(text: str) -> str:
    """Return text that Markdown shows as it is, in one line."""
    plain = html.escape(" ".join(text.split()), quote=False)
    return "".join(f"\\{char}" if char in "\\`*_[]|#~" else char for char in plain)
