"""The contact sheet of leaks of a report: training images beside validation images like them."""

from __future__ import annotations

import base64
import itertools
from typing import Any

import numpy as np

from beam_pipeline.images import decoding, lab_color, thumbnails
from beam_pipeline.naming import SPLITS
from beam_pipeline.reading import near_duplicates, numpy_reader
from beam_pipeline.reading.dataset_dir import DatasetDir
from beam_pipeline.records import near_duplicate_table
from beam_pipeline.redaction import redact
from beam_pipeline.reporting import formatting

_MAX_CARDS = 12


def make_cards(folder: DatasetDir) -> list[dict[str, Any]]:
    """Return a card for each of the first leaks: a picture of both images, and their URLs.

    Raises:
      ValueError: A shard or `near_duplicates.parquet` is broken.
    """
    table = near_duplicates.read_table(folder.path, folder.info)
    pairs = itertools.islice(near_duplicate_table.list_leaks(table), _MAX_CARDS)
    return [_make_card(folder, pair) for pair in pairs]


def _make_card(folder: DatasetDir, pair: tuple[dict[str, Any], dict[str, Any]]) -> dict[str, Any]:
    picture, (width, height) = thumbnails.make_match(*(_read_lab(folder, row) for row in pair))
    urls = [redact(row["url"]) for row in pair]
    return {
        "picture": f"data:image/jpeg;base64,{base64.b64encode(picture).decode()}",
        "width": width,
        "height": height,
        "urls": [{"complete": url, "short": formatting.abbreviate_url(url)} for url in urls],
    }


def _read_lab(folder: DatasetDir, row: dict[str, Any]) -> np.ndarray:
    """Return an image without its padding, float32 (H, W, 3), CIE L*a*b*."""
    before = itertools.takewhile(lambda shard: shard.name != row["shard"], folder.shards(*SPLITS))
    start = sum(shard.examples for shard in before if shard.split == row["split"])
    example = numpy_reader.Examples([folder], row["split"])[start + row["index"]]
    lab = lab_color.unscale_lab(example["image_l"], example["image_ab"])
    if folder.info.options["resize"] == "pad":
        lab = decoding.crop_padding(lab, (example["original_width"], example["original_height"]))
    return lab
