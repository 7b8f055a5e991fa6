"""Reads the shards of a finished folder again: whole and checked, or a sample. In several processes."""

from __future__ import annotations

import dataclasses
import io
import itertools
import math
from typing import Any

import numpy as np
from PIL import Image

from beam_pipeline.images import lab_color
from beam_pipeline.process import worker_processes
from beam_pipeline.reading import numpy_reader
from beam_pipeline.reading.dataset_dir import DatasetDir, Shard

_SAMPLED = 50  # shards of which a sample is taken at most
_SIDE = 150  # pixels of a picture
_PIXELS = 12  # images whose pixels are kept, or a few more


@dataclasses.dataclass(frozen=True)
class SampledExample:
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

    seen: list[SampledExample]
    l_counts: np.ndarray
    ab_counts: np.ndarray
    pixels: list[np.ndarray]


def take_sample(folder: DatasetDir, number: int) -> Sample:
    """The examples for training, or that many of them: the first ones of shards all over the dataset."""
    shards = [shard for shard in folder.shards("train") or folder.shards("validation") if shard.examples]
    chosen = shards[:: math.ceil(len(shards) / _SAMPLED) or 1]
    each = math.ceil(number / max(1, len(chosen)))
    few = math.ceil(_PIXELS / max(1, len(chosen)))
    tasks = [(folder.head, shard, each, few) for shard in chosen]
    parts = list(worker_processes.map_in_processes(_sample_shard, tasks, min(number, sum(shard.examples for shard in chosen))))
    return Sample(
        [seen for part in parts for seen in part.seen],
        sum((part.l_counts for part in parts), np.zeros(101, np.int64)),
        sum((part.ab_counts for part in parts), np.zeros((110, 110), np.int64)),
        [pixels for part in parts for pixels in part.pixels],
    )


def _sample_shard(task: tuple[DatasetDir, Shard, int, int]) -> Sample:
    folder, shard, number, few = task
    seen: list[SampledExample] = []
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


def _look(example: dict[str, Any], lab: np.ndarray) -> SampledExample:
    step = math.ceil(lab.shape[0] / _SIDE)
    side = lab.shape[0] // step * step
    small = lab[:side, :side].reshape(side // step, step, side // step, step, 3).mean(axis=(1, 3))
    grey = small * [1, 0, 0]
    file = io.BytesIO()
    Image.fromarray(lab_color.lab_to_rgb(np.concatenate([grey, small], axis=1))).save(file, "JPEG", quality=80)
    return SampledExample(
        example["image_url"].decode(errors="replace"),
        example["image_id"].decode(errors="replace"),
        (example["original_width"], example["original_height"]),
        float(np.hypot(lab[..., 1], lab[..., 2]).mean()),
        example.get("image_embedding"),
        file.getvalue(),
        (2 * small.shape[1], small.shape[0]),
    )
