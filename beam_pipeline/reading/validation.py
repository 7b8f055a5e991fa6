"""Reads every shard of a dataset in several processes and compares it with `dataset.json`."""

from __future__ import annotations

import collections
import dataclasses
import functools
import hashlib
import itertools
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from beam_pipeline import naming
from beam_pipeline.dataset_info import DatasetInfo
from beam_pipeline.process.plurals import count
from beam_pipeline.process.worker_processes import map_in_processes
from beam_pipeline.reading import metadata_check, near_duplicates, numpy_reader
from beam_pipeline.reading.dataset_dir import DatasetDir, Shard
from beam_pipeline.records import example_codec, near_duplicate_table, numpy_decode, tfrecord
from beam_pipeline.redaction import redact
from beam_pipeline.storage import any_path

# The smallest and the largest valid value of each array. 8-bit a* and b* start at -128.
RANGES = {
    "image_l": (-1.0, 1.0),
    "image_ab": (-128 / 127, 127 / 127),
    "image_embedding": (-math.inf, math.inf),
}
_MAX_LEAKS = 10  # named in the description of a complete dataset


@dataclasses.dataclass
class ShardReport:
    """The result of checking a shard.

    Attributes:
      shard: The shard, as listed in `dataset.json`.
      examples: Number of records read.
      names: The concatenated md5 digests, 16 bytes each, of the URLs of the valid records.
      digests: The concatenated results of `metadata_check.digest_record` for the valid records.
      ranges: The smallest and largest value of each array.
      problems: The problems found, in one line each.
    """

    shard: Shard
    examples: int = 0
    names: bytes = b""
    digests: bytes = b""
    ranges: dict[str, tuple[float, float]] = dataclasses.field(default_factory=dict)
    problems: list[str] = dataclasses.field(default_factory=list)


def check_shard(folder: DatasetDir, shard: Shard) -> ShardReport:
    """Read every record of a shard and check it against its checksums and `dataset.json`."""
    report, names, digests, sizes = ShardReport(shard), [], [], []
    offset = 0
    try:
        for index, (size, record) in enumerate(numpy_reader.read_stored(folder, shard)):
            report.examples += 1
            sizes.append(size)
            try:
                raw = example_codec.decode_example(record, folder.info.features)
                names.append(_check_example(raw, folder, report.ranges))
                digests.append(
                    metadata_check.digest_record(raw, shard, index, offset, folder.kept_columns)
                )
            except ValueError as error:
                report.problems.append(f"{shard.name}: record {index}: {error}")
            offset += sizes[-1]
        if report.examples == shard.examples:
            _check_index(shard, sizes)
    # The client of an object store may raise any exception.
    except Exception as error:
        message = str(error) or type(error).__name__
        report.problems.append(
            message if shard.name in message else f"{shard.name} cannot be read: {message}"
        )
    else:
        if report.examples != shard.examples:
            report.problems.append(
                f"{shard.name} holds {report.examples} examples, "
                f"{naming.DATASET_INFO} lists {shard.examples}"
            )
    report.names, report.digests = b"".join(names), b"".join(digests)
    return report


def _check_index(shard: Shard, sizes: Sequence[int]) -> None:
    """Raise ValueError if a shard's index is not that of its records, of the given sizes."""
    index = numpy_reader.read_index(shard)
    if index is not None and index != tfrecord.format_index(sizes):
        raise ValueError(f"{shard.name}{naming.INDEX_SUFFIX} does not match the records")


def _check_example(
    raw: Mapping[str, Any], folder: DatasetDir, ranges: dict[str, tuple[float, float]]
) -> bytes:
    """Check an example and extend the ranges, in place, by its values.

    Args:
      raw: The result of `example_codec.decode_example`.
      folder: The dataset.
      ranges: The smallest and largest value of each array.

    Returns:
      The md5 digest of its URL.

    Raises:
      ValueError: The example is invalid.
    """
    digest = hashlib.md5(raw["image_url"], usedforsecurity=False)
    if raw["image_name"] != f"{digest.hexdigest()}.jpeg".encode():
        raise ValueError(f"image_name {raw['image_name']!r} is not that of {raw['image_url']!r}")
    example = numpy_decode.decode_planes(dict(raw), folder.info.features, folder.info.encoding)
    for name in RANGES:
        if name in example:
            _widen(ranges, name, example[name], raw["image_url"])
    return digest.digest()


def _widen(
    ranges: dict[str, tuple[float, float]], name: str, values: np.ndarray, url: bytes
) -> None:
    least, largest = float(values.min()), float(values.max())
    if (
        not (RANGES[name][0] - 1e-6 <= least <= largest <= RANGES[name][1] + 1e-6)
        or math.isinf(least)
        or math.isinf(largest)
    ):
        raise ValueError(
            f"{name} of {url.decode(errors='replace')} is not in its range: "
            f"{least:g} to {largest:g}"
        )
    known = ranges.get(name, (least, largest))
    ranges[name] = min(known[0], least), max(known[1], largest)


def check_failures(folder: DatasetDir) -> tuple[dict[str, int], list[str]]:
    """Count the lines of the files of failures by reason.

    Returns:
      The counts by reason, and the problems found, in one line each.
    """
    reasons: dict[str, int] = {}
    problems = []
    for file in folder.info.failure_files:
        number = 0
        try:
            with any_path.open_file(any_path.join(folder.path, file.name)) as lines:
                for line in lines:
                    reason = json.loads(line)["reason"]
                    reasons[reason] = reasons.get(reason, 0) + 1
                    number += 1
            if number != file.failures:
                problems.append(
                    f"{file.name} holds {number} failures, "
                    f"{naming.DATASET_INFO} lists {file.failures}"
                )
        except Exception as error:
            problems.append(f"{file.name} cannot be read: {error}")
    return reasons, problems


# Files that a run writes and `dataset.json` does not list.
BESIDE = (
    *(naming.DATASET_INFO, naming.METRICS, naming.REPORT, naming.LOCK),
    *naming.DESCRIPTIONS,
)


def check(
    folder: DatasetDir, report: Callable[[str], None] = lambda problem: None
) -> tuple[list[str], str]:
    """Read a dataset and check it against its `dataset.json`.

    Args:
      folder: The dataset.
      report: Called with each problem when it is found.

    Returns:
      The problems, each in one line that names the file; and the verdict, in one or more lines.
    """
    problems: list[str] = []
    reports: list[ShardReport] = []
    for problem in _find_problems(folder, reports):
        problems.append(problem)
        report(problem)
    return (
        problems,
        f"{folder.path} is not complete: {count(len(problems), 'problem')}"
        if problems
        else _describe(folder, reports),
    )


def _find_problems(folder: DatasetDir, reports: list[ShardReport]) -> Iterator[str]:
    """Yield all problems; append the report of each shard to `reports`."""
    yield from _check_files(folder)
    yield from _check_counts(folder.info)
    reasons, wrong = check_failures(folder)
    yield from wrong
    if not wrong and reasons != folder.info.counts.failures_by_reason:
        yield f"the files of failures hold {reasons}, {naming.DATASET_INFO} lists other reasons"
    shards = folder.shards(*naming.SPLITS)
    task = functools.partial(check_shard, folder.without_lists)
    for found in map_in_processes(task, shards, sum(shard.examples for shard in shards)):
        reports.append(found)
        yield from found.problems
    yield from _find_repeated_names(reports)
    digests = {found.shard.name: found.digests for found in reports}
    damaged = frozenset(found.shard.name for found in reports if found.problems)
    yield from metadata_check.find_problems(folder, digests, damaged)
    try:
        near_duplicates.read_table(folder.path, folder.info)
    except ValueError as error:
        yield str(error)


def _check_files(folder: DatasetDir) -> Iterator[str]:
    there = any_path.list_files(folder.path)
    listed, indices = folder.info.file_sizes, folder.info.index_names
    for name in (*listed, *indices):
        if name not in there:
            yield f"{name} is missing"
        elif name in listed and there[name] != listed[name]:
            yield f"{name} has {there[name]:,} bytes, {naming.DATASET_INFO} lists {listed[name]:,}"
    unknown = set(there) - {*listed, *indices, *BESIDE}
    for name in sorted({name.partition("/")[0] for name in unknown}):
        yield (
            f"{name} is unknown: {naming.DATASET_INFO} does not list "
            f"{'all in it' if name == naming.TRANSFORM else 'it'}"
        )


def _check_counts(info: DatasetInfo) -> Iterator[str]:
    counts = info.counts
    if counts.lines != counts.ignored + counts.duplicates + counts.examples + counts.failures:
        yield f"{naming.DATASET_INFO} has counts that do not add up: {counts}"
    examples = sum(file.examples for file in info.files)
    failures = sum(file.failures for file in info.failure_files)
    rows = sum(file.rows for file in info.metadata_files)
    for noun, listed, found in (
        ("examples", counts.examples, examples),
        ("failures", counts.failures, failures),
        ("examples", counts.examples, rows),
    ):
        if listed != found:
            yield f"{naming.DATASET_INFO} lists {listed:,} {noun}, its files hold {found:,}"


def _find_repeated_names(reports: Sequence[ShardReport]) -> Iterator[str]:
    """Yield a problem for each image that occurs twice, in one split or in both.

    Takes about 50 bytes of memory per name.
    """
    names = np.frombuffer(b"".join(found.names for found in reports), "S16")
    shard_indices = np.repeat(
        np.arange(len(reports)), [len(found.names) // 16 for found in reports]
    )
    order = np.argsort(names, kind="stable")
    again = np.flatnonzero(names[order[1:]] == names[order[:-1]])
    for index in again:
        one, other = (
            reports[shard_indices[order[position]]].shard for position in (index, index + 1)
        )
        # NumPy drops trailing zero bytes.
        name = bytes(names[order[index]]).ljust(16, b"\0").hex() + ".jpeg"
        where = "in both splits" if one.split != other.split else "twice"
        yield f"{name} occurs {where}: in {one.name} and in {other.name}"


def _describe(folder: DatasetDir, reports: Sequence[ShardReport]) -> str:
    counts = collections.Counter(dict.fromkeys(naming.SPLITS, 0))
    ranges: dict[str, tuple[float, float]] = {}
    for found in reports:
        counts[found.shard.split] += found.examples
        for name, (least, largest) in found.ranges.items():
            known = ranges.get(name, (least, largest))
            ranges[name] = min(known[0], least), max(known[1], largest)
    lines = [
        f"{folder.path} is complete: {counts['train']:,} examples for training "
        f"and {counts['validation']:,} for validation in {count(len(reports), 'shard')}"
    ]
    lines += [
        f"  {name:<16} {least:.4g} to {largest:.4g}" for name, (least, largest) in ranges.items()
    ]
    if similar := folder.info.near_duplicates:
        lines.append(similar.describe())
        lines += _describe_leaks(folder, similar.leaks)
    return "\n".join(lines)


def _describe_leaks(folder: DatasetDir, number: int) -> Iterator[str]:
    table = near_duplicates.read_table(folder.path, folder.info)
    leaks = near_duplicate_table.list_leaks(table)
    for leak, other in itertools.islice(leaks, _MAX_LEAKS):
        yield f"  {redact(leak['url'])} is like {redact(other['url'])}"
    if number > _MAX_LEAKS:
        yield f"  and {number - _MAX_LEAKS:,} more"
