"""Filters images by size and colour, and takes a sample of those that it drops."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import apache_beam as beam
from apache_beam.pvalue import TaggedOutput

from beam_pipeline.config import Config
from beam_pipeline.elements import DroppedImage, Failure, RgbImage
from beam_pipeline.images import filters
from beam_pipeline.images.filters import Filters
from beam_pipeline.records import filtered_sample
from beam_pipeline.transforms.thread_map import in_global_window


def filters_of(config: Config) -> Filters:
    """Return the filters of the options: those of `--filter_preset`, and options beside it."""
    preset = filters.PRESETS.get(config.filter_preset or "", Filters())
    given = {name: getattr(config, name) for name in Filters._fields}
    return preset._replace(**{name: value for name, value in given.items() if value is not None})


def filter_image(image: RgbImage, config: Config) -> Iterator[RgbImage | TaggedOutput]:
    """Separate the images that the filters drop from the others.

    Yields:
      The image; or its `Failure` with the tag "failures", and a DroppedImage with "dropped".
    """
    problem = None
    if image.measures:
        problem = filters.find_reason(filters_of(config), image.original_size, image.measures)
    if problem is None:
        yield image
        return
    failure = Failure(image.ref, "filter", *problem, final_url=image.final_url)
    yield TaggedOutput("failures", failure)
    yield TaggedOutput("dropped", DroppedImage(image, failure))


class SampleDropped(beam.DoFn):
    """Emit `(reason, lines of filtered_sample.describe)` at the end of each bundle.

    Only the images of the sample are in memory, and none is shuffled: their pictures are, a few
    kilobytes each.

    Attributes:
      resize: The value of `--resize`.
    """

    def __init__(self, resize: str):
        self._is_padded = resize == "pad"

    def start_bundle(self) -> None:
        self._dropped: dict[str, dict[str, DroppedImage]] = {}

    def process(self, dropped: DroppedImage) -> None:
        sample = self._dropped.setdefault(dropped.failure.reason, {})
        sample[dropped.image.ref.name] = dropped
        if len(sample) > filtered_sample.MAX_IMAGES:
            del sample[max(sample)]

    def finish_bundle(self) -> Iterator[Any]:
        for reason, sample in self._dropped.items():
            lines = [filtered_sample.describe(one, self._is_padded) for one in sample.values()]
            yield in_global_window((reason, lines))
