"""The images of the list, each once."""

from __future__ import annotations

import collections
from collections.abc import Iterable, Iterator

from apache_beam.pvalue import TaggedOutput

from beam_pipeline.config import Config
from beam_pipeline.elements import Commit, ImageRef
from beam_pipeline.fetching import http_urls
from beam_pipeline.sources import url_list


def read_refs(
    commit: Commit, config: Config
) -> Iterator[tuple[str, tuple[int, ImageRef]] | TaggedOutput]:
    """Read the images of a commit.

    Yields:
      `(name, (index, image))`, where the index identifies the first of several images with one
      name; then the counts, such as `("lines", 3)`, with the tag "counts".
    """
    counts = collections.Counter(commit.counts)
    for index, ref in enumerate(
        url_list.read_refs(config, counts) if commit.refs is None else commit.refs
    ):
        yield ref.name, (index, ref)
    yield from (TaggedOutput("counts", count) for count in counts.items())


def drop_duplicates(
    group: tuple[str, Iterable[tuple[int, ImageRef]]],
) -> Iterator[ImageRef | TaggedOutput]:
    first, *others = sorted(group[1], key=lambda numbered: numbered[0])
    yield first[1]
    if others:
        yield TaggedOutput("counts", ("duplicates", len(others)))


def check_url(ref: ImageRef, config: Config) -> Iterator[ImageRef | TaggedOutput]:
    failure = None if config.images else url_list.check_length(ref) or http_urls.check_url(ref)
    yield TaggedOutput("failures", failure) if failure else ref
