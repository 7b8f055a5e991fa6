"""The images of the list, each once."""

from __future__ import annotations

import collections
from collections.abc import Iterable, Iterator

from apache_beam.pvalue import TaggedOutput

from beam_pipeline.config import Config
from beam_pipeline.elements import Commit, Failure, ImageRef, ListFile, Row, as_text
from beam_pipeline.fetching import http_urls
from beam_pipeline.sources import listing, part_list


def read_refs(
    commit: Commit, config: Config
) -> Iterator[tuple[str, tuple[int, ImageRef]] | TaggedOutput]:
    """Read the images of a commit.

    Yields:
      `(name, (index, image))`, where the index identifies the first of several images with one
      name; then the counts, such as `("lines", 3)`, with the tag "counts".
    """
    counts = collections.Counter(commit.counts)
    refs: Iterable[ImageRef]
    if commit.refs is None:
        refs = listing.read_refs(config, counts)
    elif isinstance(commit.refs, ListFile):
        refs = part_list.read(commit.refs)
    else:
        refs = commit.refs
    for index, ref in enumerate(refs):
        yield ref.name, (index, ref)
    yield from (TaggedOutput("counts", count) for count in counts.items())


def drop_duplicates(
    group: tuple[str, Iterable[tuple[int, ImageRef]]],
) -> Iterator[ImageRef | TaggedOutput]:
    first, *others = sorted(group[1], key=lambda numbered: numbered[0])
    yield first[1]
    if others:
        yield TaggedOutput("counts", ("duplicates", len(others)))


def check_ref(ref: ImageRef) -> Iterator[ImageRef | TaggedOutput]:
    """Separate images that cannot be read, and URLs that cannot be requested, from the others."""
    if ref.problem:
        yield TaggedOutput("failures", Failure(ref, "read", *ref.problem))
    elif ref.location is None and (failure := http_urls.check_url(ref)):
        yield TaggedOutput("failures", failure)
    else:
        yield ref


def group_of(ref: ImageRef) -> str:
    """Return a key that the images of a row group, or of a compressed archive, have in common."""
    if isinstance(ref.location, Row):
        return as_text(f"{ref.location.path}#{ref.location.group}")
    return ref.name
