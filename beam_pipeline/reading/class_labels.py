"""Integer labels of classes."""

from __future__ import annotations

import functools
import importlib.resources
from collections.abc import Iterable, Mapping


def label_classes(classes: Iterable[str]) -> Mapping[str, int]:
    """Return the label of each class: its index among the sorted names.

    Decimal numbers are sorted by value. Classes that are all among the 1,000 of ILSVRC2012 have
    the labels that they have there, 0 to 999, even if some of the 1,000 are missing.

    >>> label_classes(["dog", "cat"])
    {'cat': 0, 'dog': 1}
    >>> label_classes(["n01443537"])["n01443537"]
    1
    """
    names = set(classes)
    wordnet_ids = read_wordnet_ids()
    if names <= set(wordnet_ids):
        ordered: Iterable[str] = wordnet_ids
    elif all(name.isascii() and name.isdecimal() for name in names):
        ordered = sorted(names, key=lambda name: (int(name), name))
    else:
        ordered = sorted(names)
    return {name: label for label, name in enumerate(ordered)}


def label_of(image_class: bytes, labels: Mapping[str, int]) -> int:
    """Return the label of a record's `image_class`, -1 if it is unknown."""
    return labels.get(image_class.decode(errors="replace"), -1)


@functools.cache
def read_wordnet_ids() -> tuple[str, ...]:
    """Return the WordNet IDs of the 1,000 classes of ILSVRC2012, sorted."""
    path = importlib.resources.files("beam_pipeline.reading") / "ilsvrc2012_wnids.txt"
    return tuple(path.read_text().split())
