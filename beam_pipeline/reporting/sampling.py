"""Reads the shards of a finished folder again: whole and checked, or a sample. In several processes."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import hashlib
import io
import itertools
import json
import math
import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import numpy as np
from PIL import Image

from beam_pipeline.images import lab_color
from beam_pipeline.reading import dataset_dir, numpy_reader
from beam_pipeline.reading.dataset_dir import Folder, Shard
from beam_pipeline.records import example_codec

_T = TypeVar("_T")
_R = TypeVar("_R")

# Of each array: the least and the largest value that a record may hold. a* and b* of 8 bits begin at -128.
RANGES = {"image_l": (-1.0, 1.0), "image_ab": (-128 / 127, 127 / 127), "image_embedding": (-math.inf, math.inf)}
_MANY = 200  # examples for which processes are started
_SAMPLED = 50  # shards of which a sample is taken at most
_SIDE = 150  # pixels of a picture
_PIXELS = 12  # images whose pixels are kept, or a few more


@dataclasses.dataclass
class ShardSurvey:
    """What was found in a shard.

    Attributes:
      shard: As `dataset.json` tells of it.
      examples: How many records were read.
      names: The md5 of the URL of each that is right, 16 bytes each, in one.
      ranges: The least and largest value of each array.
      problems: What is wrong, each in a line.
    """

    shard: Shard
    examples: int = 0
    names: bytes = b""
    ranges: dict[str, tuple[float, float]] = dataclasses.field(default_factory=dict)
    problems: list[str] = dataclasses.field(default_factory=list)


def map_in_processes(function: Callable[[_T], _R], items: Sequence[_T], examples: int) -> Iterator[_R]:
    """Maps in order, in as many processes as there are processors; in this one if it is about few examples."""
    processes = min(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1, len(items))
    if processes < 2 or examples < _MANY:
        yield from map(function, items)
        return
    # A fork of a process with threads may come to a halt.
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(processes, context) as executor:
        yield from executor.map(function, items)


def check_shard(folder: Folder, shard: Shard) -> ShardSurvey:
    """Reads every record of a shard and holds it against its checksums and against what `dataset.json` tells."""
    survey, names = ShardSurvey(shard), []
    try:
        for number, record in enumerate(numpy_reader.read_shard(folder, shard, checked=True)):
            survey.examples += 1
            try:
                names.append(_check_example(record, folder, survey.ranges))
            except ValueError as error:
                survey.problems.append(f"{shard.name}: record {number}: {error}")
    # What an object store's client raises is its own affair.
    except Exception as error:
        told = str(error) or type(error).__name__
        survey.problems.append(told if shard.name in told else f"{shard.name} cannot be read: {told}")
    else:
        if survey.examples != shard.examples:
            survey.problems.append(
                f"{shard.name} holds {survey.examples} examples, {dataset_dir.DESCRIPTION} tells {shard.examples}"
            )
    survey.names = b"".join(names)
    return survey


def _check_example(record: bytes, folder: Folder, ranges: dict[str, tuple[float, float]]) -> bytes:
    """Widens the ranges by those of an example. Gives the md5 of its URL; raises ValueError for one that is not right."""
    raw = example_codec.decode_example(record, folder.description["features"])
    digest = hashlib.md5(raw["image_url"], usedforsecurity=False)
    if raw["image_name"] != f"{digest.hexdigest()}.jpeg".encode():
        raise ValueError(f"image_name {raw['image_name']!r} is not that of {raw['image_url']!r}")
    example = numpy_reader.decode_planes(raw, folder.description)
    for name in RANGES:
        if name in example:
            _widen(ranges, name, example[name], raw["image_url"])
    return digest.digest()


def _widen(ranges: dict[str, tuple[float, float]], name: str, values: np.ndarray, url: bytes) -> None:
    least, largest = float(values.min()), float(values.max())
    if not (RANGES[name][0] - 1e-6 <= least <= largest <= RANGES[name][1] + 1e-6) or math.isinf(least) or math.isinf(largest):
        raise ValueError(f"{name} of {url.decode(errors='replace')} is not in its range: {least:g} to {largest:g}")
    known = ranges.get(name, (least, largest))
    ranges[name] = min(known[0], least), max(known[1], largest)


def check_failures(folder: Folder) -> tuple[dict[str, int], list[str]]:
    """Counts the lines of the files of failures, by reason. Gives them, and what is wrong."""
    reasons: dict[str, int] = {}
    problems = []
    for file in folder.description["failure_files"]:
        number = 0
        try:
            with dataset_dir.open_file(dataset_dir.join(folder.path, file["name"])) as lines:
                for line in lines:
                    reason = json.loads(line)["reason"]
                    reasons[reason] = reasons.get(reason, 0) + 1
                    number += 1
            if number != file["failures"]:
                problems.append(f"{file['name']} holds {number} failures, {dataset_dir.DESCRIPTION} tells {file['failures']}")
        except Exception as error:
            problems.append(f"{file['name']} cannot be read: {error}")
    return reasons, problems


@dataclasses.dataclass(frozen=True)
class Seen:
    """One example of a sample.

    Attributes:
      url, id: Of the line.
      size: Width and height of the original, pixels.
      chroma: The mean of `sqrt(a*^2 + b*^2)` over its pixels, white padding included: 0 is grey.
      embedding: float32 (1001,), or None.
      picture: A JPEG, grey beside colour; at most 150 pixels each, since thousands are held.
      picture_size: Its width and height, pixels.
    """

    url: str
    id: str
    size: tuple[int, int]
    chroma: float
    embedding: np.ndarray | None
    picture: bytes
    picture_size: tuple[int, int]


@dataclasses.dataclass(frozen=True)
class Sample:
    """Some examples of a dataset, and what all their pixels together have.

    Attributes:
      seen: The examples.
      l_counts: Of L* in whole steps from 0, int64 (101,).
      ab_counts: Of a* and b* from -110 to 110 in steps of 2, int64 (110, 110).
      pixels: uint8 (S, S, 3), of a few of them.
    """

    seen: list[Seen]
    l_counts: np.ndarray
    ab_counts: np.ndarray
    pixels: list[np.ndarray]


def take_sample(folder: Folder, number: int) -> Sample:
    """The examples for training, or that many of them: the first ones of shards all over the dataset."""
    shards = [shard for shard in folder.shards("train") or folder.shards("validation") if shard.examples]
    chosen = shards[:: math.ceil(len(shards) / _SAMPLED) or 1]
    each = math.ceil(number / max(1, len(chosen)))
    few = math.ceil(_PIXELS / max(1, len(chosen)))
    tasks = [(folder.head, shard, each, few) for shard in chosen]
    parts = list(map_in_processes(_sample_shard, tasks, min(number, sum(shard.examples for shard in chosen))))
    return Sample(
        [seen for part in parts for seen in part.seen],
        sum((part.l_counts for part in parts), np.zeros(101, np.int64)),
        sum((part.ab_counts for part in parts), np.zeros((110, 110), np.int64)),
        [pixels for part in parts for pixels in part.pixels],
    )


def _sample_shard(task: tuple[Folder, Shard, int, int]) -> Sample:
    folder, shard, number, few = task
    seen: list[Seen] = []
    pixels: list[np.ndarray] = []
    l_counts, ab_counts = np.zeros(101, np.int64), np.zeros((110, 110), np.int64)
    for record in itertools.islice(numpy_reader.read_shard(folder, shard, checked=True), number):
        example = numpy_reader.decode_example(folder, shard, record)
        lab = lab_color.unscale_lab(example["image_l"], example["image_ab"])
        l_counts += np.bincount(np.rint(lab[..., 0]).astype(int).clip(0, 100).ravel(), minlength=101)
        bins = ((lab[..., 1:] + 110) / 2).astype(int).clip(0, 109)
        ab_counts += np.bincount((bins[..., 0] * 110 + bins[..., 1]).ravel(), minlength=110 * 110).reshape(110, 110)
        if len(pixels) < few:
            pixels.append(lab_color.lab_to_rgb(lab))
        seen.append(_look(example, lab))
    if len(seen) < min(number, shard.examples):
        raise ValueError(f"{shard.path} holds {len(seen)} examples, not {shard.examples}")
    return Sample(seen, l_counts, ab_counts, pixels)


def _look(example: dict[str, Any], lab: np.ndarray) -> Seen:
    step = math.ceil(lab.shape[0] / _SIDE)
    side = lab.shape[0] // step * step
    small = lab[:side, :side].reshape(side // step, step, side // step, step, 3).mean(axis=(1, 3))
    grey = small * [1, 0, 0]
    file = io.BytesIO()
    Image.fromarray(lab_color.lab_to_rgb(np.concatenate([grey, small], axis=1))).save(file, "JPEG", quality=80)
    return Seen(
        example["image_url"].decode(errors="replace"),
        example["image_id"].decode(errors="replace"),
        (example["original_width"], example["original_height"]),
        float(np.hypot(lab[..., 1], lab[..., 2]).mean()),
        example.get("image_embedding"),
        file.getvalue(),
        (2 * small.shape[1], small.shape[0]),
    )
