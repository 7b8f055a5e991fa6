"""From images to the records of a split."""

from __future__ import annotations

import logging

from beam_pipeline.config import Config
from beam_pipeline.elements import EmbeddedImage, EncodedExample, ImageRef
from beam_pipeline.records import example_codec, gzip_members, metadata_table, tfrecord
from beam_pipeline.transforms.ticks import Ticks

_LOGGER = logging.getLogger(__name__)


def validation_index(image: EmbeddedImage, partitions: int, fraction: float) -> int:
    """Return the split of an image: 0 for training, 1 for validation.

    If the input does not assign it, it depends only on the name, a hash of the URL, so it is the
    same on every run and runner.
    """
    return int(is_validation(image.ref, fraction))


def is_validation(ref: ImageRef, fraction: float) -> bool:
    if ref.is_validation is not None:
        return ref.is_validation
    return int(ref.name[:8], 16) < fraction * 2**32


def encode_example(image: EmbeddedImage, config: Config, ticks: Ticks | None) -> EncodedExample:
    if config.verbose:
        _LOGGER.info("%s %s", image.ref.name, image.ref.url_text)
    if ticks:
        ticks.example()
    record = example_codec.encode_example(
        image, config.encoding, bool(config.kept_columns), config.measures
    )
    frame = tfrecord.frame(record)
    stored = gzip_members.compress_frame(frame) if config.compression == "gzip" else frame
    return EncodedExample(record, stored, metadata_table.encode_row(image))
