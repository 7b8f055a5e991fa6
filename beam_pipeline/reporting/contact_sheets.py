"""The contact sheets of a report: training examples, and the extremes of size and colour. Pure."""

from __future__ import annotations

import base64
import random
from collections.abc import Sequence
from typing import Any

from beam_pipeline.redaction import redact
from beam_pipeline.reporting import class_names, formatting
from beam_pipeline.reporting.sampling import SampledExample

_SHEET = 12  # pictures; fills rows of two, three or four


def make_sheets(
    examples: Sequence[SampledExample],
    names: list[str] | None,
) -> list[dict[str, Any]]:
    """Return the sheets that are not empty: a title, the order, and a card for each picture.

    Args:
      examples: A sample of the dataset.
      names: The names of the classes, or None.
    """
    mixed = random.Random(0).sample(list(examples), min(2 * _SHEET, len(examples)))
    by_area = sorted(examples, key=_area)
    by_chroma = sorted(examples, key=_chroma)
    sheets = (
        ("Examples", "in random order", mixed[:_SHEET]),
        ("More examples", "in random order", mixed[_SHEET:]),
        ("Smallest", "by pixels of the original", by_area[:_SHEET]),
        ("Largest", "by pixels of the original", by_area[::-1][:_SHEET]),
        ("Greyest", "by mean C*", by_chroma[:_SHEET]),
        ("Most colourful", "by mean C*", by_chroma[::-1][:_SHEET]),
    )
    return [
        {"title": title, "order": order, "cards": [_make_card(one, names) for one in shown]}
        for title, order, shown in sheets
        if shown
    ]


def _area(example: SampledExample) -> int:
    return example.size[0] * example.size[1]


def _chroma(example: SampledExample) -> float:
    return example.chroma


def _make_card(example: SampledExample, names: list[str] | None) -> dict[str, Any]:
    best = []
    if names and example.embedding is not None:
        # Only the first synonym: "tench" of "tench, Tinca tinca".
        best = [name.split(",")[0] or name for name in class_names.best(example.embedding, names)]
    return {
        "picture": f"data:image/jpeg;base64,{base64.b64encode(example.picture).decode()}",
        "width": example.picture_size[0],
        "height": example.picture_size[1],
        "url": redact(example.url),
        "short_url": formatting.abbreviate_url(redact(example.url)),
        "id": example.id,
        "size": "{}×{}".format(*example.size),
        "chroma": f"{example.chroma:.0f}",
        "best": best,
    }
