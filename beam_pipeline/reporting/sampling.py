"""A sample of the examples of a dataset, read in several processes."""

from __future__ import annotations

import dataclasses
import itertools
import math
from typing import Any

import numpy as np

from beam_pipeline import naming
from beam_pipeline.images import decoding, lab_color, thumbnails
from beam_pipeline.process import worker_processes
from beam_pipeline.reading import numpy_reader
from beam_pipeline.reading.dataset_dir import DatasetDir, Shard

_SAMPLED = 50  # maximum number of shards that are sampled
_PIXELS = 12  # images whose pixels are kept, or a few more


@dataclasses.dataclass(frozen=True)
class SampledExample:
    """One example of a sample.

    Attributes:
      url, id: The URL and the ID in the record.
      size: Width and height of the original, pixels.
      chroma: The mean of `C* = sqrt(a*^2 + b*^2)` over the pixels without padding: 0 is grey.
      embedding: float32 (1001,), or None.
      picture: A JPEG without padding, the grey image beside the colour one; each has a side of
        about 150 pixels, because thousands are in memory.
      picture_size: Width and height of the JPEG, pixels.
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
    """Some examples of one split, and the distribution of their pixels, without padding.

    Attributes:
      split: `train`, or `validation` if the dataset has no training examples.
      examples: The examples.
      l_counts: Pixels by L* in steps of 1 from 0, int64 (101,).
      ab_counts: Pixels by a* and b* from -110 to 110 in steps of 2, int64 (110, 110).
      pixels: The stored squares of a few of the examples, padding included, uint8 (S, S, 3).
    """

    split: str
    examples: list[SampledExample]
    l_counts: np.ndarray
    ab_counts: np.ndarray
    pixels: list[np.ndarray]


def take_sample(folder: DatasetDir, number: int) -> Sample:
    """Return all training examples, or about `number`: the first ones of evenly spaced shards.

    Raises:
      ValueError: A shard is broken or holds fewer examples than `dataset.json` lists.
    """
    by_split = {split: _shards_with_examples(folder, split) for split in naming.SPLITS}
    split = next((split for split, shards in by_split.items() if shards), naming.SPLITS[0])
    shards = by_split[split]
    chosen = shards[:: math.ceil(len(shards) / _SAMPLED) or 1]
    each = math.ceil(number / max(1, len(chosen)))
    few = math.ceil(_PIXELS / max(1, len(chosen)))
    tasks = [(folder.without_lists, shard, each, few) for shard in chosen]
    examples = min(number, sum(shard.examples for shard in chosen))
    parts = list(worker_processes.map_in_processes(_sample_shard, tasks, examples))
    return Sample(
        split,
        [example for part in parts for example in part.examples],
        sum((part.l_counts for part in parts), np.zeros(101, np.int64)),
        sum((part.ab_counts for part in parts), np.zeros((110, 110), np.int64)),
        [pixels for part in parts for pixels in part.pixels],
    )


def _shards_with_examples(folder: DatasetDir, split: str) -> list[Shard]:
    return [shard for shard in folder.shards(split) if shard.examples]


def _sample_shard(task: tuple[DatasetDir, Shard, int, int]) -> Sample:
    folder, shard, number, few = task
    examples: list[SampledExample] = []
    pixels: list[np.ndarray] = []
    l_counts, ab_counts = np.zeros(101, np.int64), np.zeros(110 * 110, np.int64)
    is_padded = folder.info.options["resize"] == "pad"
    records = numpy_reader.read_shard(folder, shard, checked=True)
    for record in itertools.islice(records, number):
        example = numpy_reader.decode_example(folder, shard, record)
        lab = lab_color.unscale_lab(example["image_l"], example["image_ab"])
        if len(pixels) < few:
            pixels.append(lab_color.lab_to_rgb(lab))
        size = example["original_width"], example["original_height"]
        lab = decoding.crop_padding(lab, size) if is_padded else lab
        levels = np.rint(lab[..., 0]).astype(int).clip(0, 100)
        l_counts += np.bincount(levels.ravel(), minlength=101)
        bins = ((lab[..., 1:] + 110) / 2).astype(int).clip(0, 109)
        ab_counts += np.bincount((bins @ [110, 1]).ravel(), minlength=110 * 110)
        examples.append(_make_example(example, size, lab))
    if len(examples) < min(number, shard.examples):
        raise ValueError(f"{shard.path} holds {len(examples)} examples, not {shard.examples}")
    return Sample(shard.split, examples, l_counts, ab_counts.reshape(110, 110), pixels)


def _make_example(
    example: dict[str, Any],
    size: tuple[int, int],
    lab: np.ndarray,
) -> SampledExample:
    picture, picture_size = thumbnails.make_pair(lab)
    return SampledExample(
        example["image_url"].decode(errors="replace"),
        example["image_id"].decode(errors="replace"),
        size,
        float(np.hypot(lab[..., 1], lab[..., 2]).mean()),
        example.get("image_embedding"),
        picture,
        picture_size,
    )
