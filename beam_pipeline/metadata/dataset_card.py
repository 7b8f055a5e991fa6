"""The dataset card, `README.md`, with the YAML head of Hugging Face. Pure.

It states facts of the run only. A person may edit it, for example to add a licence:
`generated_text` protects the edits.
"""

from __future__ import annotations

import dataclasses
import html
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import pyarrow as pa

from beam_pipeline import naming
from beam_pipeline.config import Config
from beam_pipeline.dataset_info import DatasetInfo
from beam_pipeline.metadata.generated_text import DIGEST_PLACE
from beam_pipeline.process.plurals import count
from beam_pipeline.records import metadata_table

# Upper bounds of Hugging Face's size categories.
_SIZES = (
    *((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (10**6, "100K<n<1M")),
    *((10**7, "1M<n<10M"), (10**8, "10M<n<100M"), (10**9, "100M<n<1B")),
)
_MAX_CLASSES = 20  # listed by name


def name_of(info: DatasetInfo) -> str:
    """Return the name of the dataset: that of its folder."""
    name = str(info.options.get("output") or "").rstrip("/").rpartition("/")[2]
    return name if name not in ("", ".", "..") else "dataset"


def describe(info: DatasetInfo, kept: tuple[str, ...]) -> str:
    """Return the content of `README.md`, to be signed by `generated_text.sign`.

    Args:
      info: The content of `dataset.json`.
      kept: The names in `--keep_columns`.
    """
    lines = [*_head(info), "", *_summarize(info), "", *_describe_splits(info), ""]
    lines += ["## Reading it", "", *_explain_reading(info), ""]
    lines += ["## Features of a record", "", *_list_features(info), ""]
    lines += ["## Columns of metadata-*.parquet", "", *_list_columns(kept), ""]
    if info.classes:
        lines += ["## Classes", "", *_list_classes(info), ""]
    lines += ["## Where it comes from", "", *_describe_source(info, kept), ""]
    lines += [f"<!-- A run replaces this file unless it was edited: sha256 {DIGEST_PLACE} -->", ""]
    return "\n".join(lines)


def _head(info: DatasetInfo) -> Iterator[str]:
    """Yield the YAML head. A file of tables holds both splits, so each is one split of its own."""
    size = next((name for limit, name in _SIZES if info.counts.examples < limit), "n>1B")
    yield "---"
    yield f"pretty_name: {_quote(name_of(info))}"
    yield f"size_categories: [{json.dumps(size)}]"
    yield "task_categories: [image-to-image]"
    yield "tags: [colorization, tfrecord]"
    yield "configs:"
    yield from _describe_table("metadata", "examples", f"{naming.METADATA_PREFIX}*.parquet")
    if info.near_duplicates and info.near_duplicates.clusters:
        yield from _describe_table("near_duplicates", "images", naming.NEAR_DUPLICATES)
    yield "---"


def _describe_table(name: str, split: str, files: str) -> Iterator[str]:
    yield f"- config_name: {name}"
    yield "  data_files:"
    yield f"  - split: {split}"
    yield f"    path: {files}"


def _quote(text: str) -> str:
    """Return printable text as a string of both YAML and Python."""
    return json.dumps(text, ensure_ascii=False)


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
    yield f"images = dataset.load({_quote(name_of(info))})  # tf.data"
    yield f"images = dataset.examples({_quote(name_of(info))})  # NumPy"
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
        (_escape(column.name), _format_type(column.type), _escape(meanings[column.name]))
        for column in metadata_table.make_schema(kept)
    ]
    yield from _make_table(("column", "type", "meaning"), rows)


def _format_type(kind: pa.DataType) -> str:
    return "float32" if kind == pa.float32() else str(kind)


def _list_classes(info: DatasetInfo) -> Iterator[str]:
    """Yield a table of the classes, the largest first."""
    numbers = {
        name: [splits.get(split, 0) for split in naming.SPLITS]
        for name, splits in info.classes.items()
    }
    ordered = sorted(numbers, key=lambda name: (-sum(numbers[name]), name))
    yield f"{count(len(ordered), 'class', 'classes')}:"
    yield ""
    rows = [
        (_escape(name), *(f"{number:,}" for number in numbers[name]))
        for name in ordered[:_MAX_CLASSES]
    ]
    yield from _make_table(("class", *naming.SPLITS), rows)
    if len(ordered) > _MAX_CLASSES:
        yield ""
        yield f"`classes` in `{naming.DATASET_INFO}` lists all of them."


def _describe_source(info: DatasetInfo, kept: tuple[str, ...]) -> Iterator[str]:
    counts = info.counts
    noun = "line" if info.options.get("input") else "image"
    source = info.options.get("input") or info.options.get("images") or ""
    yield (
        f"Made by beam_pipeline {info.versions.get('beam_pipeline', '')} from "
        f"{_escape(str(source))}: {count(counts.lines, noun)}, {counts.ignored:,} ignored, "
        f"{count(counts.duplicates, 'duplicate')}, {count(counts.failures, 'failure')}."
    )
    if counts.rescued:
        yield ""
        yield (
            "Rescued by a fallback, because their servers no longer have them: "
            f"{count(counts.rescued, 'image')} (`image_source` is `fallback`)."
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
    licences = [
        column
        for column, name in zip(metadata_table.kept_names(kept), kept, strict=True)
        if re.search("licen[cs]e", name, re.IGNORECASE)
    ]
    if licences:
        names = ", ".join(map(_escape, licences))
        yield f"The licence of each image, as the source states it, is in the column {names}."
    else:
        yield "The run kept no column with licences of the images (`--keep_columns`)."
    yield ""
    rows = [
        (f"`--{field.name}`", _escape(_format_option(value)))
        for field in dataclasses.fields(Config)
        if field.metadata["shapes_dataset"]
        and ((value := info.options.get(field.name)) or value != field.default)
        and value is not None
    ]
    yield from _make_table(("option", "value"), rows)


def _format_option(value: Any) -> str:
    return {True: "on", False: "off"}[value] if isinstance(value, bool) else str(value)


def _make_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield f"| {' | '.join('---' for _ in head)} |"
    for row in rows:
        yield f"| {' | '.join(row)} |"


def _escape(text: str) -> str:
    """Return text that Markdown shows as it is, in one line."""
    plain = html.escape(" ".join(text.split()), quote=False)
    return "".join(f"\\{char}" if char in "\\`*_[]|#~" else char for char in plain)
