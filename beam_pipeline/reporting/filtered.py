"""The filtered images of a report: a contact sheet for each reason, and histograms of measures."""

from __future__ import annotations

import base64
import json
from typing import Any

from markupsafe import Markup

from beam_pipeline.images import filters
from beam_pipeline.reading.dataset_dir import DatasetDir
from beam_pipeline.records import example_codec
from beam_pipeline.redaction import redact
from beam_pipeline.reporting import charts, failure_reasons, formatting
from beam_pipeline.storage import any_path

_MAX_BYTES = 16 * 2**20  # of a sample


def make_sheets(folder: DatasetDir) -> list[dict[str, Any]]:
    """Return a sheet for each reason: its number of images, an explanation, and cards.

    Raises:
      ValueError: The sample is broken.
    """
    cards: dict[str, list[dict[str, Any]]] = {}
    for file in folder.info.filtered_files:
        with any_path.open_file(any_path.join(folder.path, file.name)) as opened:
            lines = opened.read(_MAX_BYTES).splitlines()
        try:
            for line in lines:
                fields = json.loads(line)
                cards.setdefault(fields["reason"], []).append(_make_card(fields))
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise ValueError(f"{file.name} is broken: {error}") from error
    numbers = folder.info.failures_by_stage.get("filter", {})
    return [
        {
            "reason": reason,
            "explanation": failure_reasons.explain(reason),
            "number": number,
            "cards": cards.get(reason, []),
        }
        for reason, number in sorted(numbers.items(), key=lambda item: (-item[1], item[0]))
    ]


def _make_card(fields: dict[str, Any]) -> dict[str, Any]:
    picture = base64.b64encode(base64.b64decode(fields["picture"], validate=True)).decode()
    width, height = map(int, fields["picture_size"])
    url = redact(fields["url"])
    return {
        "picture": f"data:image/jpeg;base64,{picture}",
        "width": width,
        "height": height,
        "id": str(fields["id"]),
        "size": "{}×{}".format(*map(int, fields["original_size"])),
        "detail": str(fields["detail"]),
        "url": url,
        "short_url": formatting.abbreviate_url(url),
    }


def draw_measures(folder: DatasetDir) -> list[dict[str, str | Markup]]:
    """Return a chart of each measure, with the thresholds of the filters, and its meaning."""
    return [
        {
            "name": name,
            "meaning": example_codec.MEANINGS.get(name, ""),
            "chart": charts.draw_measure(name, counts, _THRESHOLDS.get(name, {})),
        }
        for name, counts in folder.info.measures.items()
        if sum(counts.examples) + sum(counts.filtered)
    ]


# The thresholds of options and presets, by measure and label.
_THRESHOLDS: dict[str, dict[str, float]] = {
    "max_chroma_ab": {"zhang2016": filters.GREY_CHROMA},
    "tint": {"--drop_tinted": filters.TINTED},
    "colorfulness_abs": {
        name: preset.min_colorfulness
        for name, preset in filters.PRESETS.items()
        if preset.min_colorfulness is not None
    },
}
