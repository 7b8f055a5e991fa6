"""Tests of the charts of a report."""

from __future__ import annotations

import re

import numpy as np
import pytest

from beam_pipeline.dataset_info import MeasureCounts
from beam_pipeline.reporting import charts

COUNTS = MeasureCounts([0, 1, 2], [3, 4], [0, 1])
CHARTS = [
    lambda: charts.draw_measure("tint", COUNTS, {"here": 1.0}),
    lambda: charts.draw_classes([5, 3, 1]),
    lambda: charts.draw_lightness(np.arange(101)),
    lambda: charts.draw_colours(np.eye(110, dtype=np.int64), 110),
]


@pytest.mark.parametrize("draw", CHARTS)
def test_charts_take_the_colour_of_the_page(draw):
    svg = draw()
    assert svg.startswith("<svg ") and 'aria-label="' in svg
    assert "currentColor" in svg and "#010203" not in svg
    assert not re.search("(?:fill|stroke): (?:black|#000)", svg)


def test_no_pixel_is_no_error():
    assert "<svg" in charts.draw_colours(np.zeros((110, 110), np.int64), 110)
    assert "<svg" in charts.draw_lightness(np.zeros(101, np.int64))
