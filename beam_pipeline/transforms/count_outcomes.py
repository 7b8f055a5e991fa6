"""Counts of examples by class, and of examples and failures by host."""

from __future__ import annotations

import collections
import re
import urllib.parse
from collections.abc import Iterator
from typing import Any

import apache_beam as beam
from apache_beam.metrics import Metrics

from beam_pipeline.elements import EmbeddedImage, Failure
from beam_pipeline.transforms.thread_map import in_global_window
from beam_pipeline.transforms.ticks import Ticks


class CountOutcomes(beam.DoFn):
    """Count outcomes; emit a Tally for each class and host at the end of each bundle.

    The input elements are EmbeddedImage or Failure.
    """

    def start_bundle(self) -> None:
        self._counts: collections.Counter[tuple[str, ...]] = collections.Counter()

    def process(self, outcome: EmbeddedImage | Failure) -> None:
        is_example = not isinstance(outcome, Failure)
        if host := host_of(outcome.ref.url):
            self._counts[
                "host", host, "example" if isinstance(outcome, EmbeddedImage) else outcome.reason
            ] += 1
        if is_example and (wnid := class_of(outcome.ref.id)):
            self._counts["class", wnid] += 1

    def finish_bundle(self) -> Iterator[Any]:
        return map(in_global_window, self._counts.items())


def count_reason(failure: Failure, ticks: Ticks | None) -> tuple[str, int]:
    if ticks:
        ticks.failure()
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


def class_of(image_id: str) -> str:
    """Return the WordNet ID at the start of an ImageNet ID; empty if there is none.

    >>> class_of("n00004475_6590")
    'n00004475'
    """
    match = re.match(r"(n\d{8})(?:_|$)", image_id)
    return match[1] if match else ""
