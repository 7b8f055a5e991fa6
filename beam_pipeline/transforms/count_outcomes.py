"""Counts of examples by class, of examples and failures by host, and of images by measure."""

from __future__ import annotations

import collections
import urllib.parse
from collections.abc import Iterator
from typing import Any

import apache_beam as beam
from apache_beam.metrics import Metrics

from beam_pipeline import naming
from beam_pipeline.elements import DroppedImage, EmbeddedImage, Failure, RgbImage
from beam_pipeline.images import measures
from beam_pipeline.transforms import encode_examples
from beam_pipeline.transforms.thread_map import in_global_window
from beam_pipeline.transforms.ticks import Ticks


class CountOutcomes(beam.DoFn):
    """Count outcomes; emit an OutcomeCount for each key at the end of each bundle.

    The input elements are EmbeddedImage, Failure, or DroppedImage beside its failure.

    Attributes:
      fraction: The value of `--validation_fraction`.
    """

    def __init__(self, fraction: float):
        self._fraction = fraction

    def start_bundle(self) -> None:
        self._counts: collections.Counter[tuple[str, ...]] = collections.Counter()

    def process(self, outcome: EmbeddedImage | DroppedImage | Failure) -> None:
        if isinstance(outcome, DroppedImage):
            self._count_measures(outcome.image, "filtered")
            return
        is_rescued = False
        if isinstance(outcome, EmbeddedImage):
            self._count_measures(outcome.image, "example")
            is_rescued = outcome.image.image_source == "fallback"
        if is_rescued:
            self._counts["source", "fallback"] += 1
        ref = outcome.ref
        # The host of a rescued image has neither given it nor failed the run.
        if ref.location is None and not is_rescued and (host := host_of(ref.url)):
            result = outcome.reason if isinstance(outcome, Failure) else "example"
            self._counts["host", host, result] += 1
        if ref.image_class and not isinstance(outcome, Failure):
            split = naming.SPLITS[encode_examples.is_validation(ref, self._fraction)]
            self._counts["class", ref.image_class, split] += 1

    def _count_measures(self, image: RgbImage, result: str) -> None:
        for name, value in image.measures._asdict().items() if image.measures else ():
            self._counts["measure", name, str(measures.find_bin(name, value)), result] += 1

    def finish_bundle(self) -> Iterator[Any]:
        return map(in_global_window, self._counts.items())


def count_reason(failure: Failure, ticks: Ticks | None) -> tuple[str, int]:
    if ticks:
        ticks.failure(failure.reason)
    Metrics.counter("failures", failure.reason).inc()
    return f"failures/{failure.stage}/{failure.reason}", 1


def host_of(url: str) -> str:
    """Return the host of a URL in lower case; empty for a path or a URL without a host."""
    try:
        host = urllib.parse.urlsplit(url).hostname or ""
    except ValueError:
        return ""
    # Beam cannot encode surrogates, which represent the bytes of a path that are not UTF-8.
    return host.encode(errors="replace").decode()
